#include "fl_server/service/intake.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/log.h"

namespace ecopipe {
namespace {

// The flat bytes of layers [first, last]: tensors are in layer order.
std::pair<std::size_t, std::size_t> range_of(const ModelLayout& layout, std::uint32_t first,
                                             std::uint32_t last) {
    std::size_t begin = layout.bytes();
    std::size_t end = 0;
    for (const LayoutTensor& tensor : layout.tensors())
        if (tensor.layer >= first && tensor.layer <= last) {
            begin = std::min(begin, tensor.offset);
            end = std::max(end, tensor.offset + tensor.bytes);
        }
    return {std::min(begin, end), end};
}

}  // namespace

Result<CheckedUpdate> open_spooled(const Spool& spool, const std::string& files,
                                   const std::string& sizes, std::uint64_t base_version,
                                   const UpdateMeasure& measure) {
    std::vector<std::pair<BlockSourcePtr, std::size_t>> parts;
    std::istringstream names(files);
    std::istringstream bytes(sizes);
    std::string name;
    std::size_t size = 0;
    while (names >> name && bytes >> size) {
        ECOPIPE_ASSIGN_OR_RETURN(BlockSourcePtr source, file_source(spool.path(name), 0));
        parts.emplace_back(std::move(source), size);
    }
    if (parts.empty()) return fail(ExitCode::kBadFile, "an update's files are gone");
    return CheckedUpdate{
        .bytes = joined_source(std::move(parts)), .base_version = base_version, .measure = measure};
}

std::string Intake::problem(const ExpectedUpdate& expected, const UpdateSlice& slice) const {
    if (slice.base_version != expected.base_version)
        return fmt::format("it starts from version {}, expected {}", slice.base_version,
                           expected.base_version);
    const std::uint64_t most = expected.samples > 0
                                   ? std::min(expected.samples, limits_.samples_max)
                                   : limits_.samples_max;
    if (slice.samples == 0 || slice.samples > most)
        return fmt::format("it claims {} samples, expected 1 to {}", slice.samples, most);
    if (slice.slices > limits_.slices_max)
        return fmt::format("it comes in {} slices, expected at most {}", slice.slices,
                           limits_.slices_max);
    const std::uint32_t last = layout_.tensors().back().layer;
    const bool whole = slice.slices == 1;
    if (slice.first_layer > slice.last_layer || (whole && slice.first_layer != 0) ||
        (whole && slice.last_layer < last))
        return fmt::format("it covers layers {}..{}, expected 0..{}", slice.first_layer,
                           slice.last_layer, last);
    const auto [begin, end] = range_of(layout_, slice.first_layer, slice.last_layer);
    if (slice.bytes != end - begin)
        return fmt::format("its layers {}..{} have {} bytes, expected {}", slice.first_layer,
                           slice.last_layer, slice.bytes, end - begin);
    return {};
}

std::string Intake::cover(const Slices& slices) const {
    const UpdateSlice& first = slices.begin()->second.announced;
    std::uint32_t next = 0;
    for (const auto& [index, slice] : slices) {
        const UpdateSlice& a = slice.announced;
        if (a.slices != first.slices || a.base_version != first.base_version ||
            a.samples != first.samples)
            return "its slices do not agree";
        if (a.first_layer != next)
            return fmt::format("slice {} starts at layer {}, expected {}", index, a.first_layer,
                               next);
        next = a.last_layer + 1;
    }
    const std::uint32_t last = layout_.tensors().back().layer;
    return next > last ? "" : fmt::format("its slices end before layer {}", last);
}

Result<Intake::Announced> Intake::announce(const ExpectedUpdate& expected,
                                           const UpdateSlice& slice) {
    if (std::string why = problem(expected, slice); !why.empty())
        return Announced{.reason = std::move(why)};
    Slices& slices = tasks_[expected.task];
    if (const auto known = slices.find(slice.slice); known != slices.end()) {
        if (known->second.announced.sha256 == slice.sha256 &&
            known->second.announced.slices == slice.slices) {
            const std::size_t have =
                known->second.writer ? known->second.writer->received() : slice.bytes;
            return Announced{.reason = "", .offset = have, .bytes = slice.bytes};
        }
        slices.erase(known);
    }
    const auto [begin, end] = range_of(layout_, slice.first_layer, slice.last_layer);
    ECOPIPE_ASSIGN_OR_RETURN(
        auto writer, SpoolWriter::create(spool_.path(Spool::file_name(expected.task, slice.slice)),
                                         UpdateCheck(layout_, expected.base, begin, end, scratch_),
                                         slice.bytes));
    slices[slice.slice] = {.announced = slice, .writer = std::move(writer), .measure = {}};
    return Announced{.reason = "", .offset = 0, .bytes = slice.bytes};
}

Result<Intake::Progress> Intake::chunk(std::uint64_t task, std::uint16_t index, std::size_t offset,
                                       std::span<const std::byte> bytes) {
    Progress progress;
    const auto found = tasks_.find(task);
    if (found == tasks_.end()) return progress;
    Slices& slices = found->second;
    const auto slice = slices.find(index);
    if (slice == slices.end() || !slice->second.writer) return progress;
    SpoolWriter& writer = *slice->second.writer;
    if (offset != writer.received() || bytes.size() > writer.expected() - offset || bytes.empty())
        return progress;
    progress.known = true;
    // What is wrong with the update is a reason; what is wrong with the disk is an error.
    const auto reject = [&](const Error& error) -> Result<Progress> {
        if (error.code != ExitCode::kBadFile) return tl::unexpected<Error>(error);
        progress.reason = error.message;
        return progress;
    };
    const auto taken = writer.append(bytes);
    if (!taken) return reject(taken.error());
    progress.no_room = !*taken;
    if (progress.no_room) return progress;
    progress.left = writer.expected() - writer.received();
    if (progress.left > 0) return progress;
    const auto whole = writer.finish(slice->second.announced.sha256);
    if (!whole) return reject(whole.error());
    progress.no_room = !*whole;
    if (progress.no_room) return progress;
    slice->second.measure = writer.measure();
    slice->second.writer.reset();
    if (slices.size() < slice->second.announced.slices) return progress;
    for (const auto& [i, s] : slices)
        if (s.writer) return progress;
    progress.reason = cover(slices);
    if (!progress.reason.empty()) return progress;
    CompleteUpdate complete;
    complete.first = slices.begin()->second.announced;
    for (const auto& [i, s] : slices) {
        const char* blank = complete.spool.empty() ? "" : " ";
        complete.measure.add(s.measure);
        complete.sha256 += blank + s.announced.sha256;
        complete.spool += blank + Spool::file_name(task, i);
        complete.slice_bytes += blank + std::to_string(s.announced.bytes);
    }
    const double norm = std::sqrt(complete.measure.squared_norm);
    if (norm > limits_.norm_max) {
        progress.reason =
            fmt::format("its change has norm {:g}, expected at most {:g}", norm, limits_.norm_max);
        return progress;
    }
    tasks_.erase(found);
    progress.complete = std::move(complete);
    return progress;
}

std::size_t Intake::bytes_to_come() const {
    std::size_t bytes = 0;
    for (const auto& [task, slices] : tasks_)
        for (const auto& [index, slice] : slices)
            if (slice.writer) bytes += slice.writer->expected() - slice.writer->received();
    return bytes;
}

void Intake::abandon(std::uint64_t task) {
    const auto found = tasks_.find(task);
    if (found == tasks_.end()) return;
    for (const auto& [index, slice] : found->second)
        if (!slice.writer) spool_.remove(Spool::file_name(task, index));
    tasks_.erase(found);
}

}  // namespace ecopipe
