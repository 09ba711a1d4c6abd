#include "fl_server/state/model_store.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "core/files.h"
#include "core/strict_json.h"

namespace ecopipe {
namespace {

// The safetensors header of a layout's flat bytes, its length included.
std::string header_of(const ModelLayout& layout) {
    OrderedJson header = OrderedJson::object();
    for (const LayoutTensor& tensor : layout.tensors())
        header[tensor.name] = {{"dtype", std::string(dtype_name(tensor.dtype))},
                               {"shape", tensor.shape},
                               {"data_offsets", {tensor.offset, tensor.offset + tensor.bytes}}};
    std::string text = header.dump();
    while (text.size() % 8 != 0) text += ' ';
    const auto length = static_cast<std::uint64_t>(text.size());
    return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace

ModelStore::ModelStore(std::string directory, const ModelLayout& layout)
    : directory_(std::move(directory)), header_(header_of(layout)), bytes_(layout.bytes()) {}

Result<ModelStore> ModelStore::open(const std::string& state_directory, const ModelLayout& layout) {
    ModelStore store(state_directory, layout);
    ECOPIPE_RETURN_IF_ERROR(make_private_directory(state_directory + "/models"));
    ECOPIPE_RETURN_IF_ERROR(make_private_directory(state_directory + "/kept"));
    std::error_code ignored;
    for (const auto& entry :
         std::filesystem::directory_iterator(state_directory + "/models", ignored)) {
        const std::string name = entry.path().stem().string();
        std::uint64_t version = 0;
        const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), version);
        if (bad == std::errc() && end == name.data() + name.size() &&
            entry.path().extension() == ".safetensors")
            store.versions_.insert(version);  // a write that a crash cut short ends in .tmp
    }
    return store;
}

std::string ModelStore::path(std::uint64_t version) const {
    return fmt::format("{}/models/{}.safetensors", directory_, version);
}

Result<void> ModelStore::write(std::uint64_t version, const std::string& flat) {
    const std::array<std::string_view, 2> parts{header_, flat};
    ECOPIPE_RETURN_IF_ERROR(write_file_atomically(path(version), parts));
    versions_.insert(version);
    return {};
}

Result<void> ModelStore::link(const std::string& from, const std::string& name) const {
    const std::string target = directory_ + "/" + name;
    const std::string temporary = target + ".tmp";
    ::unlink(temporary.c_str());
    if (::link(from.c_str(), temporary.c_str()) != 0 ||
        ::rename(temporary.c_str(), target.c_str()) != 0)
        return fail(ExitCode::kRunFailed,
                    fmt::format("{}: cannot link: {}", target, std::strerror(errno)));
    ::unlink(temporary.c_str());  // rename leaves it when both names are of one file already
    return {};
}

Result<void> ModelStore::publish(std::uint64_t version) {
    return link(path(version), "model.safetensors");
}
Result<void> ModelStore::publish(const std::string& flat) {
    const std::array<std::string_view, 2> parts{header_, flat};
    return write_file_atomically(directory_ + "/model.safetensors", parts);
}
Result<void> ModelStore::publish_best(std::uint64_t version) {
    return link(path(version), "best.safetensors");
}
Result<void> ModelStore::publish_best() {
    return link(directory_ + "/model.safetensors", "best.safetensors");
}

Result<BlockSourcePtr> ModelStore::source(std::uint64_t version) const {
    return file_source(path(version), header_.size());
}

Result<std::shared_ptr<const std::string>> ModelStore::load(std::uint64_t version) const {
    ECOPIPE_ASSIGN_OR_RETURN(std::string bytes, read_file(path(version), kModelBytesMax));
    if (bytes.size() != header_.size() + bytes_ || bytes.compare(0, header_.size(), header_) != 0)
        return fail(ExitCode::kBadFile, path(version) + ": is not of this federation's model");
    bytes.erase(0, header_.size());
    return std::make_shared<const std::string>(std::move(bytes));
}

void ModelStore::prune(const std::set<std::uint64_t>& needed) {
    for (auto it = versions_.begin(); it != versions_.end();) {
        if (needed.contains(*it)) {
            ++it;
            continue;
        }
        ::unlink(path(*it).c_str());
        ::unlink((path(*it) + ".tmp").c_str());
        it = versions_.erase(it);
    }
}

Result<std::string> ModelStore::keep(const std::string& name, std::uint64_t version,
                                     const std::string& bytes) {
    std::string file;  // a strategy's name, made fit for a file
    for (const char c : name)
        file += std::isalnum(static_cast<unsigned char>(c)) != 0
                    ? std::string(1, c)
                    : fmt::format("_{:02x}", static_cast<unsigned char>(c));
    file += fmt::format(".{}", version);
    ECOPIPE_RETURN_IF_ERROR(write_file_atomically(directory_ + "/kept/" + file, bytes));
    return file;
}

Result<std::shared_ptr<const std::string>> ModelStore::load_kept(const std::string& file) const {
    ECOPIPE_ASSIGN_OR_RETURN(std::string bytes,
                             read_file(directory_ + "/kept/" + file, kModelBytesMax));
    return std::make_shared<const std::string>(std::move(bytes));
}

void ModelStore::prune_kept(const std::set<std::string>& files) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/kept", ignored))
        if (!files.contains(entry.path().filename().string()))
            std::filesystem::remove(entry.path(), ignored);
}

}  // namespace ecopipe
