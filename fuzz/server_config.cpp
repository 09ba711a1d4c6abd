// server.yaml.
#include "fl_server/service/server_config.h"

#include "fuzz/target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    static_cast<void>(parse_server_config(fuzz::text(data, size), "server.yaml"));
    return 0;
}
