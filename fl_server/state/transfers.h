#pragma once
// One pool of credits for all bytes under way, in both directions: how far each cluster may send
// its update, and when it gets the next part of the model. So the server's memory does not depend
// on how many clusters there are. Updates take at most half of it: they lie in memory, where parts
// of the model are the model itself, and neither direction stops the other. Who has begun comes
// before who waits to begin: a few transfers are under way at a time, and each of them ends soon.
// Pure.

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "core/clock.h"

namespace ecopipe {

struct UploadKey {
    std::string cluster;
    std::uint64_t task = 0;
    std::uint16_t slice = 0;
    friend auto operator<=>(const UploadKey&, const UploadKey&) = default;
};

class Transfers {
  public:
    explicit Transfers(std::size_t bytes_max) : max_(bytes_max) {}

    // The cluster has `total` bytes of a slice, of which the first `have` are here.
    void start_upload(Instant now, const UploadKey& key, std::size_t have, std::size_t total);
    void took(Instant now, const UploadKey& key, std::size_t bytes);
    void end_upload(const UploadKey& key);
    void end_uploads_of(const std::string& cluster, std::uint64_t task);

    struct Grant {
        UploadKey key;
        std::size_t offset = 0;  // what came before was granted earlier
        std::size_t until = 0;
    };
    // The next grant that the pool has room for.
    [[nodiscard]] std::optional<Grant> next_grant();
    // An upload that has had credit for longer than `patience` and sent nothing: it loses it.
    [[nodiscard]] std::optional<UploadKey> take_stalled(Instant now, Duration patience);

    struct Part {
        std::string cluster;
        std::uint64_t version = 0;
        std::size_t offset = 0;
        std::size_t bytes = 0;
    };
    // A cluster asks for a part; what it says to have received returns to the pool. A part that it
    // waits for already, or too far beyond what it has, is passed over: it asks again.
    void ask(Instant now, const Part& part, std::size_t received);
    void received(Instant now, const std::string& cluster, std::size_t received);
    [[nodiscard]] std::optional<Part> next_part();
    // Takes the credit back of who has received nothing for longer than `patience`.
    void forget_stalled(Instant now, Duration patience);

    // Stalls of the last `time` are nobody's: whoever would have seen the bytes did not run.
    void nobody_looked(Instant now, Duration time);

    void forget(const std::string& cluster);
    [[nodiscard]] std::size_t used() const { return used_; }
    [[nodiscard]] std::size_t bytes_max() const { return max_; }

  private:
    // Who has begun, and who waits to begin.
    template <class T>
    struct Queues {
        std::deque<T> begun;
        std::deque<T> fresh;
        void erase(const T& item) {
            std::erase(begun, item);
            std::erase(fresh, item);
        }
    };
    struct Upload {
        std::size_t have = 0;
        std::size_t until = 0;
        std::size_t total = 0;
        bool begun = false;
        bool waiting = false;
        Instant last{};
    };
    struct Download {
        std::uint64_t version = 0;
        std::size_t sent = 0;  // up to here, from `received` on
        std::size_t received = 0;
        std::deque<Part> asked;  // not sent yet
        bool begun = false;
        bool waiting = false;
        Instant last{};
    };
    using Uploads = std::map<UploadKey, Upload>;
    void drop(Uploads::iterator upload);
    void drop_from(Uploads::iterator upload, const std::string& cluster,
                   std::optional<std::uint64_t> task);
    void wait(const UploadKey& key, Upload& upload);
    void wait(const std::string& cluster, Download& download);

    std::size_t max_;
    std::size_t used_ = 0;
    std::size_t used_by_uploads_ = 0;
    Uploads uploads_;
    Queues<UploadKey> waiting_uploads_;
    std::map<std::string, Download> downloads_;
    Queues<std::string> waiting_downloads_;
};

}  // namespace ecopipe
