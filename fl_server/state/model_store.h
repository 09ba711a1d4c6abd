#pragma once
// The versions of the global model on disk, and what strategies keep beside them. One thread.
//
//   STATE/models/VERSION.safetensors   versions that someone still needs, and the newest N
//   STATE/model.safetensors            the newest that is served, under the name that people look
//   for STATE/best.safetensors             the one that was best so far STATE/kept/NAME.VERSION
//   models that recipes keep, moments of the server optimiser

#include <set>
#include <string>

#include "fl_server/numbers/block_source.h"
#include "fl_server/numbers/model_layout.h"

namespace ecopipe {

class ModelStore {
  public:
    // Makes the directories. `layout` must outlive it.
    [[nodiscard]] static Result<ModelStore> open(const std::string& state_directory,
                                                 const ModelLayout& layout);

    // Durable when it returns. An earlier file of that version (of a commit that a crash undid) is
    // replaced.
    [[nodiscard]] Result<void> write(std::uint64_t version, const std::string& flat);
    [[nodiscard]] Result<void> publish(std::uint64_t version);  // as model.safetensors
    [[nodiscard]] Result<void> publish(const std::string& flat);
    [[nodiscard]] Result<void> publish_best(std::uint64_t version);
    [[nodiscard]] Result<void> publish_best();  // what is published
    [[nodiscard]] Result<BlockSourcePtr> source(std::uint64_t version) const;
    [[nodiscard]] Result<std::shared_ptr<const std::string>> load(std::uint64_t version) const;
    [[nodiscard]] bool has(std::uint64_t version) const { return versions_.contains(version); }
    // Deletes every version not in `needed`.
    void prune(const std::set<std::uint64_t>& needed);

    [[nodiscard]] Result<std::string> keep(const std::string& name, std::uint64_t version,
                                           const std::string& bytes);  // the file's name
    [[nodiscard]] Result<std::shared_ptr<const std::string>> load_kept(
        const std::string& file) const;
    void prune_kept(const std::set<std::string>& files);

  private:
    ModelStore(std::string directory, const ModelLayout& layout);
    [[nodiscard]] std::string path(std::uint64_t version) const;
    [[nodiscard]] Result<void> link(const std::string& from, const std::string& name) const;

    std::string directory_;
    std::string header_;  // of the safetensors files, the same for all
    std::size_t bytes_;
    std::set<std::uint64_t> versions_;
};

}  // namespace ecopipe
