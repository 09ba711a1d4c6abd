#include "orchestrator/session/recovery.h"

#include <gtest/gtest.h>

#include "tests/orchestrator/plan_of.h"
#include "transport/data/data_plane.h"

namespace ecopipe {
namespace {

TEST(Holdings, ThePointIsTheNewestStepThatEveryLayerHasTwice) {
    Holdings holdings({0, 2, 3});  // layer 1 has no tensors
    holdings.set_base(0);
    EXPECT_EQ(holdings.newest_point(2), 0U);
    holdings.stored("a", 0, 1, 4);
    holdings.stored("b", 2, 3, 4);
    EXPECT_EQ(holdings.newest_point(1), 4U);
    EXPECT_EQ(holdings.newest_point(2), 0U);
    holdings.stored("b", 0, 1, 4);
    holdings.stored("a", 2, 2, 4);
    EXPECT_EQ(holdings.newest_point(2), 0U);  // layer 3 is on b alone
    holdings.stored("a", 3, 3, 4);
    EXPECT_EQ(holdings.newest_point(2), 4U);
    holdings.stored("a", 0, 3, 6);
    holdings.stored("b", 0, 2, 6);
    EXPECT_EQ(holdings.newest_point(2), 4U);  // steps are never combined
    holdings.forget("a");
    EXPECT_EQ(holdings.newest_point(1), 4U);
    holdings.forget("b");
    EXPECT_EQ(holdings.newest_point(1), 0U);
}

TEST(Holdings, GoingBackGivesUpLaterStates) {
    Holdings holdings({0});
    holdings.stored("a", 0, 0, 4);
    holdings.stored("a", 0, 0, 6);
    holdings.rewound_to(4);
    EXPECT_EQ(holdings.newest_point(1), 4U);
    holdings.drop_before(5);
    EXPECT_EQ(holdings.newest_point(1), 0U);
}

TEST(Holdings, ANewerBaseIsAPoint) {
    Holdings holdings({0});
    holdings.stored("a", 0, 0, 4);
    holdings.stored("b", 0, 0, 4);
    holdings.set_base(9);
    EXPECT_EQ(holdings.newest_point(1), 9U);
    EXPECT_EQ(holdings.newest_point(2), 9U);
}

TEST(PlanRestore, KeepsWhatIsThereAndSharesTheRest) {
    Holdings holdings({0, 1, 2, 3, 4, 5});
    // b died; a and c kept its replica of layers 2 and 3 between them.
    holdings.stored("a", 0, 1, 8);
    holdings.stored("c", 4, 5, 8);
    holdings.stored("a", 2, 3, 8);
    const auto restore = plan_restore(holdings, PlanIndex(plan_of({{"a", 0, 2}, {"c", 3, 5}})), 8);
    EXPECT_EQ(restore.restore.at("a"), (std::vector<LayerTransfer>{{0, 2, "a"}}));
    EXPECT_EQ(restore.restore.at("c"), (std::vector<LayerTransfer>{{3, 3, "a"}, {4, 5, "c"}}));
    EXPECT_EQ(restore.supply.at("a"), (std::vector<LayerTransfer>{{3, 3, "c"}}));
    EXPECT_FALSE(restore.supply.contains("c"));
}

TEST(PlanRestore, TheBaseGivesWhatNobodyHas) {
    Holdings holdings({0, 1, 3});
    holdings.set_base(5);
    holdings.stored("a", 0, 0, 5);
    const auto restore = plan_restore(holdings, PlanIndex(plan_of({{"a", 0, 1}, {"b", 2, 3}})), 5);
    EXPECT_EQ(restore.restore.at("a"),
              (std::vector<LayerTransfer>{{0, 0, "a"}, {1, 1, kPortalPeer}}));
    EXPECT_EQ(restore.restore.at("b"), (std::vector<LayerTransfer>{{3, 3, kPortalPeer}}));
    EXPECT_EQ(restore.supply.at(kPortalPeer),
              (std::vector<LayerTransfer>{{1, 1, "a"}, {3, 3, "b"}}));
}

TEST(PlaceReplicas, WithinTheMemoryThatThePlanLeaves) {
    ReplicaRequest request;
    request.state_bytes = {{"a", 100}, {"b", 10}, {"c", 50}};
    request.devices = {{"a", 1000}, {"b", 1000}, {"c", 1000}};
    const auto plan = place_replicas(request);
    EXPECT_EQ(plan.buddies.size(), 3U);
    for (const auto& [owner, buddy] : plan.buddies) EXPECT_NE(owner, buddy);
    EXPECT_EQ(plan.buddies.at("a"), "b");  // the most room
    EXPECT_EQ(plan.every, 1U);
    request.devices[0].free_bytes = 199;
    const auto none = place_replicas(request);
    EXPECT_TRUE(none.buddies.empty());
    EXPECT_EQ(none.every, 0U);
    EXPECT_NE(none.why_not.find("device a has no memory left"), std::string::npos);
    request.devices[0].free_bytes = 1000;
    request.devices[1].free_bytes = request.devices[2].free_bytes = 150;
    EXPECT_NE(place_replicas(request).why_not.find("a's layers"), std::string::npos);
}

// Every step, three of each state may be there at once; every other step, two.
TEST(PlaceReplicas, AllCopiesFit) {
    ReplicaRequest request;
    request.state_bytes = {{"a", 100}, {"b", 100}};
    request.devices = {{"a", 600}, {"b", 600}};
    const auto roomy = place_replicas(request);
    EXPECT_EQ(roomy.every, 1U);
    EXPECT_EQ(roomy.bytes_on("a"), 600);
    request.devices[1].free_bytes = 599;
    const auto tight = place_replicas(request);
    EXPECT_EQ(tight.every, 2U);
    EXPECT_EQ(tight.bytes_on("a"), 400);
    EXPECT_EQ(tight.bytes_on("c"), 0);
    EXPECT_EQ(ReplicaPlan().bytes_on("a"), 0);
}

TEST(PlaceReplicas, TheIntervalFitsTheLinksIdleTime) {
    ReplicaRequest request;
    request.state_bytes = {{"a", 1e6}, {"b", 1e5}};
    request.devices = {{"a", 1e9}, {"b", 1e9}};
    request.step_ms = 100;
    EXPECT_EQ(place_replicas(request).every, 1U);
    // 80 ms to ship over 100 Mbit/s; 60 ms idle, half of them used: every 3 steps.
    request.links[{"a", "b"}] = {100, 40};
    EXPECT_EQ(place_replicas(request).every, 3U);
    request.links[{"a", "b"}] = {100, 100};  // always busy
    EXPECT_EQ(place_replicas(request).every, 160U);
}

TEST(PlaceReplicas, ALoneDeviceHasThePortal) {
    ReplicaRequest request;
    request.state_bytes = {{"a", 100}};
    request.devices = {{"a", 1000}};
    EXPECT_EQ(place_replicas(request).buddies.at("a"), kPortalPeer);
}

}  // namespace
}  // namespace ecopipe
