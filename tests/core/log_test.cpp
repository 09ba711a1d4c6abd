#include "core/log.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

TEST(Log, ALibrarysMessageIsOneLineWithoutEscapes) {
    EXPECT_EQ(one_line("\nUnknown op:\n\n  Could not find it.\t\r\n"),
              "Unknown op: Could not find it.");
    EXPECT_EQ(one_line(" \n"), "");
    EXPECT_EQ(one_line("bell\a"), "bell\\x07");
    EXPECT_LT(one_line(std::string(10000, '\n') + std::string(10000, 'a')).size(), 220U);
}

TEST(Log, APeersTextKeepsItsControlCharactersVisible) {
    EXPECT_EQ(printable("a\nb"), "a\\x0ab");
}

}  // namespace
}  // namespace ecopipe
