#pragma once
// Units that several speak in.

namespace ecopipe {

inline constexpr double kMib = 1024.0 * 1024.0;  // bytes

}  // namespace ecopipe
