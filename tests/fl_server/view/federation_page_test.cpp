#include "fl_server/view/federation_page.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

FederationView of_two() {
    FederationView view;
    view.strategy = "ecofl";
    view.phase = "running";
    view.rounds = 10;
    SiteView north;
    north.cluster = "north";
    north.connected = true;
    north.group = 0;
    north.samples = 100;
    SiteView south = north;
    south.cluster = "south";
    south.task = 3;
    south.latency_s = 2.5;
    view.sites = {north, south};
    return view;
}

TEST(FederationPage, ShowsSitesAndGroupsAsTheyAre) {
    FederationPage page("a federation", 1000);
    EXPECT_EQ(page.document(1000)["state"], "starting");
    page.update(of_two(), 2000);
    const OrderedJson document = page.document(3000);
    EXPECT_EQ(document["state"], "running");
    EXPECT_EQ(document["sites"][1]["state"], "training");
    EXPECT_EQ(document["groups"].dump(),
              R"([{"name":"group 0","sites":["north","south"],"latency_s":2.5}])");
    EXPECT_EQ(document["events"][0]["text"], "north joined");
}

TEST(FederationPage, TellsWhatChangedSinceTheViewBefore) {
    FederationPage page("a federation", 1000);
    FederationView view = of_two();
    page.update(view, 2000);
    const std::uint64_t before = page.revision();
    view.sites[0].connected = false;
    view.sites[1].group = -1;
    view.sites[1].rejections = 1;
    view.sites[1].reason = "a weight is\nno number";
    view.phase = "paused";
    view.recent.push_back({1, 5, 0, 2, 200, 0.75, 0.5, 1});
    page.update(view, 4000);
    EXPECT_GT(page.revision(), before);
    const OrderedJson document = page.document(4000);
    std::vector<std::string> kinds;
    for (const OrderedJson& event : document["events"]) kinds.push_back(event["kind"]);
    EXPECT_EQ(kinds, (std::vector<std::string>{"join", "join", "phase", "lost", "moved", "round",
                                               "phase"}));
    EXPECT_EQ(document["rejections"].dump(),
              R"([{"unix_ms":4000,"site":"south","reason":"a weight is\\x0ano number"}])");
    EXPECT_EQ(document["evaluation"]["accuracy"], 0.75);
    EXPECT_EQ(document["updated_unix_ms"], 4000);
    page.update(view, 5000);
    EXPECT_EQ(page.document(5000)["events"].size(), 7U) << "nothing is told twice";
}

TEST(FederationPage, KnowsTheRoundOfAServerThatWasStartedAgain) {
    FederationPage page("a federation", 1000);
    FederationView view = of_two();
    view.version = 7;  // its rounds were told by the process before
    page.update(view, 2000);
    EXPECT_EQ(page.document(2000)["round"], 7);
    EXPECT_EQ(page.document(2000)["rounds"].size(), 0U);
    view.version = 8;
    view.recent.push_back({8, 5, 0, 2, 200, 0.75, 0.5, 0});
    page.update(view, 3000);
    EXPECT_EQ(page.document(3000)["round"], 8);
    EXPECT_EQ(page.document(3000)["rounds"][0]["clusters"], 2);
}

TEST(FederationPage, StaysSmallOverAHundredThousandRounds) {
    FederationPage page("a federation", 0);
    FederationView view = of_two();
    for (std::uint64_t round = 1; round <= 100000; ++round) {
        view.version = round;
        view.recent = {{round, 0, 0, 2, 200, 0.5, 1.5, 0}};
        ++view.sites[0].rejections;
        page.update(view, static_cast<std::int64_t>(round));
    }
    EXPECT_LT(page.document(1).dump().size(), 200U << 10);
    EXPECT_EQ(page.document(1)["round"], 100000);
}

}  // namespace
}  // namespace ecopipe
