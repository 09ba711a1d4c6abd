#include "fl_server/client/federated_client.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using Counts = std::vector<std::uint64_t>;

TEST(FederatedClient, TellsOfItsLabelsWhatItIsAskedTo) {
    const Counts counts{0, 1, 3, 100, 5000};
    EXPECT_EQ(label_report(counts, "exact"), counts);
    EXPECT_EQ(label_report(counts, "rounded"), (Counts{0, 1, 4, 128, 4096}));
    EXPECT_TRUE(label_report(counts, "none").empty());
}

}  // namespace
}  // namespace ecopipe
