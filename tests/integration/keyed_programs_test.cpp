// Keys between running programs: who is let in, who is not and sees why, what a removed key does.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/integration/training_fixture.h"
#include "transport/security/key_ring.h"

namespace ecopipe::test {
namespace {

class KeyedPrograms : public Training {
  protected:
    std::string keys(const std::string& name) const { return directory_ / ("keys-" + name); }
    std::string make(const std::string& name) {
        const Finished made = run({"ecopipe-keygen", "--keys", keys(name), "--name", name});
        EXPECT_EQ(made.code, 0) << made.err;
        return keys(name);
    }
    void allow(const std::string& who, const std::string& peer, std::string as = {}) {
        write(keys(who) + "/allowed/" + (as.empty() ? peer : as) + ".public",
              read(keys(peer) + "/own.public"));
    }
    std::string fingerprint(const std::string& name) {
        return parse_public_key(read(keys(name) + "/own.public"), name)->fingerprint();
    }
    void write_cluster() {
        write(directory_ / "cluster.yaml",
              fmt::format("name: home\nportal: d0\nportal_address: 127.0.0.1\nport: {}\ndevices:\n"
                          "  - {{name: d0, memory_mib: 2048, speed: 1}}\n"
                          "  - {{name: d1, memory_mib: 2048, speed: 1}}\n"
                          "default_link: {{mbps: 1000, latency_ms: 0.1}}\n",
                          port_));
        write(directory_ / "plan.json", hand_plan({"lenet5", "lenet5", 12}, 2, "1f1b", 32, 4));
    }
    std::vector<std::string> train(const std::string& steps, const std::vector<std::string>& more) {
        std::vector<std::string> words{"ecopipe-train",
                                       "--model",
                                       "lenet5",
                                       "--cluster",
                                       directory_ / "cluster.yaml",
                                       "--plan",
                                       directory_ / "plan.json",
                                       "--data",
                                       "synthetic:1x28x28:10:400",
                                       "--steps",
                                       steps,
                                       "--no-evaluation",
                                       "--quiet",
                                       "--out",
                                       directory_ / "out"};
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    std::vector<std::string> stage(const std::string& name, const std::vector<std::string>& more) {
        std::vector<std::string> words{"ecopipe-stage", "--join",
                                       fmt::format("tcp://127.0.0.1:{}", port_), "--name", name};
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    const int port_ = free_port();
};

TEST_F(KeyedPrograms, ARunWithKeysHasTheBytesOfOneWithout) {
    write_cluster();
    for (const char* name : {"d0", "d1"}) make(name);
    allow("d0", "d1");
    allow("d1", "d0");  // a stage needs the portal's key alone
    Process portal(train("20", {"--keys", keys("d0")}));
    Process first(stage("d0", {"--keys", keys("d0"), "--portal", "d0"}));
    Process second(stage("d1", {"--keys", keys("d1")}));
    const Finished finished = portal.wait(90);
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_EQ(first.wait(20).code, 0);
    EXPECT_EQ(second.wait(20).code, 0);
    const std::string secret = read(keys("d0") + "/own.secret");
    const std::string value = secret.substr(secret.find("secret: ") + 8, 40);
    EXPECT_EQ(finished.err.find(value), std::string::npos);
    EXPECT_EQ(read(directory_ / "out/run.json").find(value), std::string::npos);
    EXPECT_TRUE(read(directory_ / "out/model.safetensors") ==
                single({"lenet5", "lenet5", 12},
                       {"--data", "synthetic:1x28x28:10:400", "--steps", "20", "--batch", "32",
                        "--micro-batches", "4"},
                       "alone"));
}

TEST_F(KeyedPrograms, StrangersEndWithCode5AndTheOperatorSeesThem) {
    write_cluster();
    for (const char* name : {"d0", "d1", "stranger"}) make(name);
    allow("d1", "d0");
    allow("stranger", "d0");
    Process portal(train("20", {"--keys", keys("d0")}));
    ASSERT_TRUE(portal.wait_for_err("waiting on", 60)) << portal.err();
    const Finished unknown = run(stage("d1", {"--keys", keys("stranger")}), 30);
    EXPECT_EQ(unknown.code, 5) << unknown.err;
    EXPECT_NE(unknown.err.find("does not allow this machine's key"), std::string::npos);
    EXPECT_TRUE(portal.wait_for_err("its key " + fingerprint("stranger") + " is not allowed", 5))
        << portal.err();
    EXPECT_NE(portal.err().find("control port: 127.0.0.1 refused"), std::string::npos);
    const Finished open = run(stage("d1", {}), 30);
    EXPECT_EQ(open.code, 5) << open.err;
    EXPECT_NE(open.err.find("wants keys: give --keys DIR"), std::string::npos);
    // Whichever end notices first: the stage hangs up when it sees that keys are wanted.
    EXPECT_TRUE(portal.wait_for_err("speaks without keys", 1) ||
                portal.wait_for_err("left during the handshake", 4))
        << portal.err();
    // It expects another portal.
    allow("d0", "d1");
    allow("d1", "stranger", "d0");
    const Finished elsewhere = run(stage("d1", {"--keys", keys("d1")}), 30);
    EXPECT_EQ(elsewhere.code, 5) << elsewhere.err;
    EXPECT_NE(elsewhere.err.find("its key is not that of d0"), std::string::npos);
    // A key of another name than it says.
    allow("d0", "stranger", "visitor");
    const Finished liar = run(stage("d1", {"--keys", keys("stranger")}), 30);
    EXPECT_EQ(liar.code, 5) << liar.err;
    EXPECT_NE(liar.err.find("its key is not the one of d1"), std::string::npos);
}

TEST_F(KeyedPrograms, ARemovedKeyIsCutOffAtOnceAndEnrolmentNeedsNoRestart) {
    write_cluster();
    for (const char* name : {"d0", "d1"}) make(name);
    allow("d1", "d0");
    Process portal(train("100000", {"--keys", keys("d0"), "--join-timeout-s", "60"}));
    ASSERT_TRUE(portal.wait_for_err("waiting on", 60)) << portal.err();
    allow("d0", "d1");  // while it waits
    Process first(stage("d0", {"--keys", keys("d0"), "--portal", "d0"}));
    Process second(stage("d1", {"--keys", keys("d1")}));
    ASSERT_TRUE(portal.wait_for_err("replicas every", 60)) << portal.err();
    std::filesystem::remove(keys("d0") + "/allowed/d1.public");
    EXPECT_TRUE(portal.wait_for_err("the key of d1 no longer counts", 2)) << portal.err();
    EXPECT_TRUE(portal.wait_for_err("d1 was lost", 2)) << portal.err();
    const Finished cut = second.wait(20);
    EXPECT_EQ(cut.code, 5) << cut.err;
    portal.signal(SIGTERM);
    EXPECT_EQ(portal.wait(60).code, 143);
}

TEST_F(KeyedPrograms, TheFederationsServerKnowsItsClustersByTheirFiles) {
    for (const char* name : {"server", "north", "stranger"}) make(name);
    allow("north", "server");
    allow("stranger", "server");
    allow("server", "north");
    const std::string address = fmt::format("tcp://127.0.0.1:{}", port_);
    Process server({"ecopipe-fl-server", "--bind", address, "--model", "lenet5", "--state",
                    directory_ / "state", "--rounds", "2", "--min-clusters", "1", "--keys",
                    keys("server")});
    ASSERT_TRUE(server.wait_for_err("listening on", 30)) << server.err();
    const auto client = [&](const std::string& who, const std::string& name) {
        return std::vector<std::string>{"ecopipe-train",   "--single",
                                        "--model",         "lenet5",
                                        "--data",          "synthetic:1x28x28:10:200",
                                        "--out",           directory_ / ("out-" + who + name),
                                        "--no-evaluation", "--quiet",
                                        "--federated",     address,
                                        "--cluster-name",  name,
                                        "--keys",          keys(who)};
    };
    const Finished unknown = run(client("stranger", "north"), 60);
    EXPECT_EQ(unknown.code, 5) << unknown.err;
    EXPECT_TRUE(server.wait_for_err("its key " + fingerprint("stranger") + " is not allowed", 5))
        << server.err();
    const Finished liar = run(client("north", "south"), 60);
    EXPECT_EQ(liar.code, 5) << liar.err;
    const Finished known = run(client("north", "north"), 90);
    EXPECT_EQ(known.code, 0) << known.err;
    EXPECT_EQ(server.wait(60).code, 0) << server.err();
}

TEST_F(KeyedPrograms, TheFlagsAreRefusedWhenTheyMakeNoSense) {
    const std::string own = make("d0");
    const auto refused = [&](const std::vector<std::string>& more, int code,
                             const std::string& text) {
        const Finished finished = run(stage("d0", more), 20);
        EXPECT_EQ(finished.code, code) << finished.err;
        EXPECT_NE(finished.err.find(text), std::string::npos) << finished.err;
    };
    refused({"--keys", own, "--insecure"}, 2, "--keys and --insecure exclude each other");
    refused({"--keys", own}, 2, "allowed is empty");
    refused({"--keys", own, "--portal", "hub"}, 2, "has no hub.public");
    refused({"--portal", "hub"}, 2, "--portal goes with --keys");
    refused({"--keys", directory_ / "nowhere"}, 3, "nowhere");
    ::chmod((own + "/own.secret").c_str(), 0644);
    refused({"--keys", own, "--portal", "d0"}, 3, "others may read it");
    const Finished outside =
        run({"ecopipe-stage", "--join", "tcp://192.0.2.1:5599", "--name", "d0"}, 20);
    EXPECT_EQ(outside.code, 2) << outside.err;
    const Finished again = run({"ecopipe-keygen", "--keys", own, "--name", "d0"});
    EXPECT_EQ(again.code, 2) << again.err;
}

}  // namespace
}  // namespace ecopipe::test
