#include "fl_server/numbers/slot_rules.h"

#include <algorithm>
#include <array>

#include "fl_server/numbers/robust_rules.h"

namespace ecopipe {
namespace {

constexpr std::size_t kRowsElements = 1U << 20;  // 8 MiB of doubles over all rows

// Deltas of `count` elements of every update, one row each.
Result<void> read_deltas(const ModelLayout& layout, const Block& block,
                         const std::vector<KeptUpdate>& updates, std::size_t first,
                         std::size_t count, std::vector<double>& rows) {
    rows.resize(updates.size() * count);
    std::vector<double> base(count);
    const bool clipped = layout.kind(block) == StateKind::kParameter;
    for (std::size_t u = 0; u < updates.size(); ++u) {
        double* row = rows.data() + u * count;
        ECOPIPE_RETURN_IF_ERROR(read_values(layout, block, *updates[u].update, first, count, row));
        ECOPIPE_RETURN_IF_ERROR(
            read_values(layout, block, *updates[u].base, first, count, base.data()));
        const double clip = clipped ? updates[u].clip : 1;
        for (std::size_t i = 0; i < count; ++i) row[i] = (row[i] - base[i]) * clip;
    }
    return {};
}

std::size_t columns_at_once(std::size_t updates) {
    return std::clamp<std::size_t>(kRowsElements / updates, 64, kBlockElements);
}

}  // namespace

Result<void> read_values(const ModelLayout& layout, const Block& block, const BlockSource& source,
                         std::size_t first, std::size_t count, double* out) {
    const DType dtype = layout.dtype(block);
    const std::size_t size = dtype_bytes(dtype);
    alignas(64) std::array<std::byte, kBlockBytesMax> scratch;
    ECOPIPE_ASSIGN_OR_RETURN(const auto bytes,
                             source.read(block.offset + first * size, count * size, size, scratch));
    if (dtype == DType::kF64)
        std::copy_n(reinterpret_cast<const double*>(bytes.data()), count, out);
    else
        std::copy_n(reinterpret_cast<const float*>(bytes.data()), count, out);
    return {};
}

Result<std::vector<KeptUpdate>> krum_choice(const ModelLayout& layout,
                                            std::vector<KeptUpdate> updates,
                                            const Combine& combine) {
    const std::size_t n = updates.size();
    const std::size_t columns = columns_at_once(n);
    std::vector<double> distances(n * n, 0.0);
    std::vector<double> rows;
    for (const Block& block : layout.blocks()) {
        if (layout.kind(block) != StateKind::kParameter) continue;
        for (std::size_t first = 0; first < block.elements; first += columns) {
            const std::size_t count = std::min(columns, block.elements - first);
            ECOPIPE_RETURN_IF_ERROR(read_deltas(layout, block, updates, first, count, rows));
            for (std::size_t a = 0; a < n; ++a)
                for (std::size_t b = a + 1; b < n; ++b) {
                    double sum = 0;
                    for (std::size_t i = 0; i < count; ++i) {
                        const double gap = rows[a * count + i] - rows[b * count + i];
                        sum += gap * gap;
                    }
                    distances[a * n + b] += sum;
                }
        }
    }
    for (std::size_t a = 0; a < n; ++a)
        for (std::size_t b = 0; b < a; ++b) distances[a * n + b] = distances[b * n + a];
    std::vector<KeptUpdate> chosen;
    for (const std::size_t index : multi_krum(distances, n, combine.byzantine, combine.keep))
        chosen.push_back(updates[index]);
    return chosen;
}

Result<void> combine_block(const ModelLayout& layout, const Block& block,
                           const std::vector<KeptUpdate>& updates, const Combine& combine,
                           double* out) {
    const std::size_t n = updates.size();
    const std::size_t columns = columns_at_once(n);
    std::vector<double> values;
    std::vector<const double*> rows(n);
    for (std::size_t first = 0; first < block.elements; first += columns) {
        const std::size_t count = std::min(columns, block.elements - first);
        ECOPIPE_RETURN_IF_ERROR(read_deltas(layout, block, updates, first, count, values));
        for (std::size_t u = 0; u < n; ++u) rows[u] = values.data() + u * count;
        if (combine.rule == Combine::Rule::kCoordinateMedian) {
            coordinate_median(rows, count, out + first);
        } else if (combine.rule == Combine::Rule::kTrimmedMean) {
            trimmed_mean(rows, count, combine.trim, out + first);
        } else {
            for (std::size_t i = 0; i < count; ++i) {
                double sum = 0;
                for (const double* row : rows) sum += row[i];
                out[first + i] = sum / static_cast<double>(n);
            }
        }
    }
    return {};
}

}  // namespace ecopipe
