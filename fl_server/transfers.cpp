#include "fl_server/transfers.h"

#include <algorithm>

namespace ecopipe {
namespace {

constexpr std::size_t kGrant = 1U << 20;         // bytes at a time
constexpr std::size_t kUploadWindow = 4U << 20;  // of one upload
constexpr std::size_t kAskedMax = 16;            // requests of one cluster that wait

}  // namespace

void Transfers::wait(const UploadKey& key, Upload& upload) {
    if (upload.waiting || upload.until == upload.total ||
        upload.until - upload.have + kGrant > kUploadWindow)
        return;
    upload.waiting = true;
    waiting_.push_back(key);
}

void Transfers::start_upload(Instant now, const UploadKey& key, std::size_t have,
                             std::size_t total) {
    end_upload(key);
    Upload& upload = uploads_[key];
    upload = {have, have, total, false, now};
    wait(key, upload);
}

void Transfers::took(Instant now, const UploadKey& key, std::size_t bytes) {
    const auto found = uploads_.find(key);
    if (found == uploads_.end()) return;
    Upload& upload = found->second;
    const std::size_t known = std::min(bytes, upload.until - upload.have);
    used_ -= known;
    upload.have = std::min(upload.have + bytes, upload.total);
    upload.until = std::max(upload.until, upload.have);  // sent on an earlier grant
    upload.last = now;
    wait(key, upload);
}

void Transfers::drop(std::map<UploadKey, Upload>::iterator upload) {
    used_ -= upload->second.until - upload->second.have;
    uploads_.erase(upload);  // its place in the queue is skipped when it comes up
}

void Transfers::end_upload(const UploadKey& key) {
    const auto found = uploads_.find(key);
    if (found == uploads_.end()) return;
    if (found->second.waiting) std::erase(waiting_, key);
    drop(found);
}

void Transfers::end_uploads_of(const std::string& cluster, std::uint64_t task) {
    for (auto it = uploads_.lower_bound({cluster, task, 0});
         it != uploads_.end() && it->first.cluster == cluster && it->first.task == task;) {
        const auto next = std::next(it);
        if (it->second.waiting) std::erase(waiting_, it->first);
        drop(it);
        it = next;
    }
}

std::optional<Transfers::Grant> Transfers::next_grant() {
    while (!waiting_.empty()) {
        const UploadKey key = waiting_.front();
        const auto found = uploads_.find(key);
        if (found == uploads_.end()) {
            waiting_.pop_front();
            continue;
        }
        Upload& upload = found->second;
        const std::size_t more = std::min(kGrant, upload.total - upload.until);
        if (used_ + more > max_) return std::nullopt;
        waiting_.pop_front();
        upload.waiting = false;
        used_ += more;
        upload.until += more;
        wait(key, upload);
        return Grant{key, upload.have, upload.until};
    }
    return std::nullopt;
}

std::optional<UploadKey> Transfers::take_stalled(Instant now, Duration patience) {
    for (auto it = uploads_.begin(); it != uploads_.end(); ++it) {
        if (it->second.until == it->second.have || now - it->second.last <= patience) continue;
        const UploadKey key = it->first;
        if (it->second.waiting) std::erase(waiting_, key);
        drop(it);
        return key;
    }
    return std::nullopt;
}

void Transfers::received(const std::string& cluster, std::size_t received) {
    const auto found = downloads_.find(cluster);
    if (found == downloads_.end()) return;
    Download& download = found->second;
    const std::size_t now = std::clamp(received, download.received, download.sent);
    used_ -= now - download.received;
    download.received = now;
}

void Transfers::ask(const Part& part, std::size_t received) {
    this->received(part.cluster, received);
    const auto mine = std::count_if(asked_.begin(), asked_.end(),
                                    [&](const Part& p) { return p.cluster == part.cluster; });
    if (static_cast<std::size_t>(mine) >= kAskedMax) return;
    Download& download = downloads_[part.cluster];
    // A cluster that goes back has lost what was under way.
    if (download.version != part.version || part.offset < download.sent) {
        used_ -= download.sent - download.received;
        download = {part.version, received, received};
    }
    asked_.push_back(part);
}

std::optional<Transfers::Part> Transfers::next_part() {
    if (asked_.empty()) return std::nullopt;
    const Part part = asked_.front();
    Download& download = downloads_[part.cluster];
    // One part always fits when nothing else is under way, or nobody would ever get any.
    if (used_ > 0 && used_ + part.bytes > max_) return std::nullopt;
    asked_.pop_front();
    const std::size_t end = std::max(download.sent, part.offset + part.bytes);
    used_ += end - download.sent;
    download.sent = end;
    return part;
}

void Transfers::forget(const std::string& cluster) {
    for (auto it = uploads_.lower_bound({cluster, 0, 0});
         it != uploads_.end() && it->first.cluster == cluster;) {
        const auto next = std::next(it);
        if (it->second.waiting) std::erase(waiting_, it->first);
        drop(it);
        it = next;
    }
    if (const auto found = downloads_.find(cluster); found != downloads_.end()) {
        used_ -= found->second.sent - found->second.received;
        downloads_.erase(found);
    }
    std::erase_if(asked_, [&](const Part& part) { return part.cluster == cluster; });
}

}  // namespace ecopipe
