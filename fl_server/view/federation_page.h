#pragma once
// A federation as the page of transport/web/web_page.h shows it (docs/VIEW.md): what FederationView
// says now, and what can only be told by having watched: curves, events and rejections. Its memory
// does not grow with the federation. Fed by the server's thread, read by the page's.

#include <atomic>
#include <deque>
#include <map>
#include <string>

#include "core/bounded_series.h"
#include "core/mutex.h"
#include "core/strict_json.h"
#include "fl_server/view/federation_view.h"

namespace ecopipe {

class FederationPage {
  public:
    static constexpr std::size_t kEventsMax = 200;
    static constexpr std::size_t kRejectionsMax = 100;
    static constexpr std::size_t kRoundsMax = 50;

    FederationPage(std::string title, std::int64_t now_unix_ms);

    // Whenever something may have changed; it compares with the view before.
    void update(const FederationView& view, std::int64_t now_unix_ms) ECOPIPE_EXCLUDES(mutex_);
    // What /view.json is; the revision rises when it changes.
    [[nodiscard]] OrderedJson document(std::int64_t now_unix_ms) const ECOPIPE_EXCLUDES(mutex_);
    [[nodiscard]] std::uint64_t revision() const { return revision_; }

  private:
    void add_event(std::int64_t now_unix_ms, const std::string& kind, std::string text)
        ECOPIPE_REQUIRES(mutex_);
    void compare_site(const SiteView& before, const SiteView& site, std::int64_t now_unix_ms)
        ECOPIPE_REQUIRES(mutex_);
    void take_rounds(const FederationView& view, std::int64_t now_unix_ms) ECOPIPE_REQUIRES(mutex_);

    struct Event {
        std::int64_t unix_ms = 0;
        std::string kind;
        std::uint64_t round = 0;
        std::string text;
    };
    struct Rejection {
        std::int64_t unix_ms = 0;
        std::string site;
        std::string reason;
    };

    std::string title_;
    std::int64_t started_unix_ms_;
    mutable Mutex mutex_;
    std::atomic<std::uint64_t> revision_{1};
    FederationView now_ ECOPIPE_GUARDED_BY(mutex_);
    bool seen_ ECOPIPE_GUARDED_BY(mutex_) = false;
    std::uint64_t newest_round_ ECOPIPE_GUARDED_BY(mutex_) = 0;
    std::int64_t round_unix_ms_ ECOPIPE_GUARDED_BY(mutex_) = 0;
    BoundedSeries accuracy_ ECOPIPE_GUARDED_BY(mutex_);
    BoundedSeries loss_ ECOPIPE_GUARDED_BY(mutex_);
    std::deque<RoundView> rounds_ ECOPIPE_GUARDED_BY(mutex_);
    std::deque<Event> events_ ECOPIPE_GUARDED_BY(mutex_);
    std::deque<Rejection> rejections_ ECOPIPE_GUARDED_BY(mutex_);
};

}  // namespace ecopipe
