#pragma once
// One function out of several, for std::visit: an alternative that none of them takes does not
// compile.

namespace ecopipe {

template <class... Handlers>
struct Overloaded : Handlers... {
    using Handlers::operator()...;
};
template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

}  // namespace ecopipe
