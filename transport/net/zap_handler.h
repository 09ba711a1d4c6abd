#pragma once
// Answers ZeroMQ's question whether a key may connect (ZAP, RFC 27), from a KeyRing. Bound before
// any socket of its context: with ZMQ_ZAP_ENFORCE_DOMAIN a socket whose handler is missing lets
// nobody in, and without that option everybody.
//
// A known key's User-Id is its peer's name; the property kKeyProperty is its fingerprint, so that
// what an old key of the same name has sent can be told apart.

#include "transport/net/net_loop.h"

namespace ecopipe {

inline constexpr const char* kKeyProperty = "X-Key";
// ZAP domains are the ports' names. On a data port an unknown key may be introduced in a moment: it
// is told to come again (300), elsewhere that it is not welcome (400).
inline constexpr const char* kDataDomain = "data";

class ZapHandler {
  public:
    explicit ZapHandler(NetLoop& loop);  // network thread, as all of it
    ~ZapHandler();
    ZapHandler(const ZapHandler&) = delete;
    ZapHandler& operator=(const ZapHandler&) = delete;

  private:
    void answer_some();

    NetLoop& loop_;
    zmq::socket_t socket_;
};

// Any other thread than the loop's, before any socket: every connection of this loop is encrypted
// and authenticated from now on. Null changes nothing.
void use_keys(NetLoop& loop, std::shared_ptr<KeyRing> keys);

}  // namespace ecopipe
