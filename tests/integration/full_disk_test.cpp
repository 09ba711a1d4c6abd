// Disks that are full or read-only under a training: it goes on, or says so.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <regex>
#include <sstream>
#include <thread>

#include "tests/integration/survival_fixture.h"

namespace ecopipe::test {
namespace {

// A file system of its own, which only the training sees, of `size`; `script` is run by sh with
// $DISK its directory, and what it leaves there is found under "disk" afterwards.
class SmallDisk : public Survival {
  protected:
    Finished on_disk(const std::string& size, const std::string& script) {
        const std::string mount = directory_ / "mount";
        const std::string text = "mkdir -p " + mount + " && mount -t tmpfs -o size=" + size +
                                 " none " + mount + " || exit 99\nDISK=" + mount + "\n" + script +
                                 "\ncode=$?\ncp -r $DISK " + (directory_ / "disk") +
                                 "\nexit $code\n";
        write(directory_ / "disk.sh", text);
        return run(with_own_mounts({"/bin/sh", directory_ / "disk.sh"}));
    }
    [[nodiscard]] std::string train(const std::string& more, const std::string& steps) const {
        std::string line = program("ecopipe-train") + " --single --model lenet5 --no-evaluation " +
                           "--quiet --optimizer adam --checkpoint-every 6 " + more;
        for (const std::string& flag : flags(steps)) line += " " + flag;
        return line;
    }
    [[nodiscard]] std::string on_disk_file(const std::string& name) const {
        return read(directory_ / ("disk/" + name));
    }
};

TEST_F(SmallDisk, AFullDiskIsSaidAndEarlierCheckpointsStay) {
    // Room for two checkpoints of 745 kB and the model, not for the third that is written beside
    // them.
    const Finished finished = on_disk("1900k", train("--out $DISK/run", "60"));
    EXPECT_EQ(finished.code, 0) << finished.err;
    EXPECT_NE(finished.err.find("checkpoint of step 18: "), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("No space left on device"), std::string::npos) << finished.err;
    ASSERT_FALSE(on_disk_file("run/checkpoints/step-000000000012.checkpoint").empty());
    // What stands there is whole: the run goes on from it, to the same bytes.
    ASSERT_EQ(run({"/bin/cp", "-r", directory_ / "disk/run", directory_ / "resumed"}).code, 0);
    auto resumed = start("resumed", {"--single", "--resume", "--optimizer", "adam"});
    const Finished second = resumed->wait(kSurvivalDeadlineS);
    ASSERT_EQ(second.code, 0) << second.err;
    EXPECT_NE(second.err.find("resuming from the checkpoint of step 12"), std::string::npos)
        << second.err;
    expect_whole("resumed", 60);
    EXPECT_TRUE(read(directory_ / "resumed/model.safetensors") ==
                on_disk_file("run/model.safetensors"));
}

// Another program takes the last byte in the middle of a run, and gives it back.
TEST_F(SmallDisk, LinesThatFindNoRoomComeWhenThereIsSome) {
    const Finished finished = on_disk(
        "3000k", train("--out $DISK/run", "400") +
                     " 2> $DISK.log & pid=$!\n"
                     "until [ -s $DISK/run/metrics.jsonl ]; do sleep 0.02; done\n"
                     "dd if=/dev/zero of=$DISK/filler bs=4k 2> /dev/null\n"
                     "until grep -q 'wait in memory' $DISK.log; do kill -0 $pid || break; "
                     "sleep 0.02; done\n"
                     "rm $DISK/filler; wait $pid; code=$?; cat $DISK.log >&2; (exit $code)");
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_NE(finished.err.find("metrics.jsonl: cannot write: No space left on device; its lines "
                                "wait in memory"),
              std::string::npos)
        << finished.err;
    EXPECT_NE(finished.err.find("metrics.jsonl: it is written again"), std::string::npos)
        << finished.err;
    ASSERT_EQ(run({"/bin/cp", "-r", directory_ / "disk/run", directory_ / "filled"}).code, 0);
    expect_whole("filled", 400);
}

TEST_F(SmallDisk, AResultThatFindsNoRoomEndsTheRunWithALine) {
    const Finished model = on_disk("900k", train("--out $DISK/run", "20"));
    EXPECT_EQ(model.code, 1);
    EXPECT_NE(model.err.find("model.safetensors: cannot write: No space left on device"),
              std::string::npos)
        << model.err;
    EXPECT_FALSE(on_disk_file("run/checkpoints/step-000000000006.checkpoint").empty());
}

TEST_F(SmallDisk, AReadOnlyDirectoryIsRefusedBeforeTraining) {
    const Finished finished =
        on_disk("10m", train("--out $DISK/run", "20") + " || exit 98\nmount -o remount,ro $DISK\n" +
                           train("--out $DISK/other", "20") + " && exit 97\n" +
                           train("--out $DISK/run --resume", "30"));
    EXPECT_EQ(finished.code, 1) << finished.err;
    EXPECT_NE(finished.err.find("other: cannot create: Read-only file system"), std::string::npos)
        << finished.err;
    EXPECT_NE(finished.err.find("run: cannot be written"), std::string::npos) << finished.err;
    EXPECT_FALSE(on_disk_file("run/checkpoints/step-000000000018.checkpoint").empty());
}

}  // namespace
}  // namespace ecopipe::test
