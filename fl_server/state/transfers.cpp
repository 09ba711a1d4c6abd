#include "fl_server/state/transfers.h"

#include <algorithm>

namespace ecopipe {
namespace {

constexpr std::size_t kGrant = 512U << 10;         // bytes at a time
constexpr std::size_t kUploadWindow = 2U << 20;    // of one upload
constexpr std::size_t kDownloadWindow = 4U << 20;  // of one cluster
constexpr std::size_t kAskedMax = 16;              // requests of one cluster that wait

}  // namespace

// ---- updates on their way in

void Transfers::wait(const UploadKey& key, Upload& upload) {
    if (upload.waiting || upload.until == upload.total ||
        upload.until - upload.have + kGrant > kUploadWindow)
        return;
    upload.waiting = true;
    (upload.begun ? waiting_uploads_.begun : waiting_uploads_.fresh).push_back(key);
}

void Transfers::start_upload(Instant now, const UploadKey& key, std::size_t have,
                             std::size_t total) {
    const auto found = uploads_.find(key);
    if (found != uploads_.end()) {
        Upload& known = found->second;
        // Announced again on the same connection, which loses nothing: it keeps its place, and what
        // is under way keeps its credit.
        if (known.have == have && known.total == total) return;
        drop(found);
    }
    Upload& upload = uploads_[key];
    upload = {.have = have, .until = have, .total = total, .last = now};
    wait(key, upload);
}

void Transfers::took(Instant now, const UploadKey& key, std::size_t bytes) {
    const auto found = uploads_.find(key);
    if (found == uploads_.end()) return;
    Upload& upload = found->second;
    const std::size_t known = std::min(bytes, upload.until - upload.have);
    used_ -= known;
    used_by_uploads_ -= known;
    upload.have = std::min(upload.have + bytes, upload.total);
    upload.until = std::max(upload.until, upload.have);  // sent on an earlier grant
    upload.last = now;
    wait(key, upload);
}

void Transfers::drop(Uploads::iterator upload) {
    used_ -= upload->second.until - upload->second.have;
    used_by_uploads_ -= upload->second.until - upload->second.have;
    if (upload->second.waiting) waiting_uploads_.erase(upload->first);
    uploads_.erase(upload);
}

void Transfers::drop_from(Uploads::iterator upload, const std::string& cluster,
                          std::optional<std::uint64_t> task) {
    while (upload != uploads_.end() && upload->first.cluster == cluster &&
           (!task || upload->first.task == *task))
        drop(upload++);
}

void Transfers::end_upload(const UploadKey& key) {
    if (const auto found = uploads_.find(key); found != uploads_.end()) drop(found);
}

void Transfers::end_uploads_of(const std::string& cluster, std::uint64_t task) {
    drop_from(uploads_.lower_bound({.cluster = cluster, .task = task, .slice = 0}), cluster, task);
}

std::optional<Transfers::Grant> Transfers::next_grant() {
    auto& queue = waiting_uploads_.begun.empty() ? waiting_uploads_.fresh : waiting_uploads_.begun;
    if (queue.empty()) return std::nullopt;
    const UploadKey key = queue.front();
    Upload& upload = uploads_.at(key);
    const std::size_t more = std::min(kGrant, upload.total - upload.until);
    if (used_ + more > max_ || used_by_uploads_ + more > max_ / 2) return std::nullopt;
    queue.pop_front();
    upload.waiting = false;
    upload.begun = true;
    used_ += more;
    used_by_uploads_ += more;
    upload.until += more;
    wait(key, upload);
    return Grant{.key = key, .offset = upload.until - more, .until = upload.until};
}

std::optional<UploadKey> Transfers::take_stalled(Instant now, Duration patience) {
    for (auto it = uploads_.begin(); it != uploads_.end(); ++it) {
        if (it->second.until == it->second.have || now - it->second.last <= patience) continue;
        const UploadKey key = it->first;
        drop(it);
        return key;
    }
    return std::nullopt;
}

// ---- the model on its way out

void Transfers::wait(const std::string& cluster, Download& download) {
    if (download.waiting || download.asked.empty()) return;
    download.waiting = true;
    (download.begun ? waiting_downloads_.begun : waiting_downloads_.fresh).push_back(cluster);
}

void Transfers::received(Instant now, const std::string& cluster, std::size_t received) {
    const auto found = downloads_.find(cluster);
    if (found == downloads_.end()) return;
    Download& download = found->second;
    const std::size_t here = std::clamp(received, download.received, download.sent);
    if (here > download.received) download.last = now;
    used_ -= here - download.received;
    download.received = here;
}

void Transfers::ask(Instant now, const Part& part, std::size_t received) {
    this->received(now, part.cluster, received);
    Download& download = downloads_[part.cluster];
    const auto same = [&](const Part& p) {
        return p.version == part.version && p.offset == part.offset && p.bytes == part.bytes;
    };
    if (download.asked.size() >= kAskedMax ||
        part.offset + part.bytes > received + kDownloadWindow ||
        std::any_of(download.asked.begin(), download.asked.end(), same))
        return;
    // A cluster that goes back has lost what was under way.
    if (download.version != part.version || part.offset < download.sent) {
        used_ -= download.sent - download.received;
        if (download.version != part.version) download.asked.clear();
        download.version = part.version;
        download.sent = download.received = received;
        download.begun = false;
        download.last = now;
    }
    download.asked.push_back(part);
    wait(part.cluster, download);
}

std::optional<Transfers::Part> Transfers::next_part() {
    auto& queue =
        waiting_downloads_.begun.empty() ? waiting_downloads_.fresh : waiting_downloads_.begun;
    if (queue.empty()) return std::nullopt;
    const std::string cluster = queue.front();
    Download& download = downloads_.at(cluster);
    const Part part = download.asked.front();
    // One part always fits when nothing else is under way, or nobody would ever get any.
    if (used_ > 0 && used_ + part.bytes > max_) return std::nullopt;
    queue.pop_front();
    download.asked.pop_front();
    download.waiting = false;
    download.begun = true;
    const std::size_t end = std::max(download.sent, part.offset + part.bytes);
    used_ += end - download.sent;
    download.sent = end;
    wait(cluster, download);
    return part;
}

void Transfers::forget_stalled(Instant now, Duration patience) {
    for (auto& [cluster, download] : downloads_) {
        if (download.sent == download.received || now - download.last <= patience) continue;
        used_ -= download.sent - download.received;
        download.received = download.sent;
    }
}

void Transfers::nobody_looked(Instant now, Duration time) {
    for (auto& [key, upload] : uploads_) upload.last = std::min<Instant>(now, upload.last + time);
    for (auto& [cluster, download] : downloads_)
        download.last = std::min<Instant>(now, download.last + time);
}

void Transfers::forget(const std::string& cluster) {
    drop_from(uploads_.lower_bound({.cluster = cluster, .task = 0, .slice = 0}), cluster, {});
    const auto found = downloads_.find(cluster);
    if (found == downloads_.end()) return;
    used_ -= found->second.sent - found->second.received;
    if (found->second.waiting) waiting_downloads_.erase(cluster);
    downloads_.erase(found);
}

}  // namespace ecopipe
