// The way into a layer: each of its folders is opened by descriptor, one level after the other, and looked at before
// anything in it is. So nobody leads a reader or writer elsewhere by a link, or by a folder that they may write to.
#pragma once

#include "cache/trust.hpp"
#include "util/file_system.hpp"
#include "util/files.hpp"

#include <smlora/cache.hpp>

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace smlora::cache {

class KeptFolder;

/// A folder of the cache, and who may have written what is in it, beside this user and root.
struct Layer {
    util::FileSystem& files;
    std::filesystem::path root;
    Writers kernels{};
    Writers records{};                           ///< and bundles
    std::shared_ptr<KeptFolder> kept = nullptr;  ///< of the kernels; null: it is opened for each
};

[[nodiscard]] std::filesystem::path version_folder(const std::filesystem::path& root);
[[nodiscard]] std::filesystem::path kernels_folder(const std::filesystem::path& root);
[[nodiscard]] std::filesystem::path tuning_folder(const std::filesystem::path& root);

/// A folder of a layer, open for as long as this lives.
class Folder {
 public:
    enum class Missing { stays, is_made };

    /// `path` is the layer's root, which links may lead to, or is below it, where no link is followed. The folders
    /// below the root that are missing may be made, with permissions 0700.
    Folder(const Layer& layer, const std::filesystem::path& path, Missing missing = Missing::stays);
    /// The folder `name` in the one of the layer's kernels.
    Folder(const Layer& layer, const Folder& kernels, std::string name);

    /// Zero or a negated errno: -EPERM when it is refused.
    [[nodiscard]] int error() const noexcept { return error_; }
    /// This folder or one on the way to it, if it cannot be trusted, with what is wrong and what helps.
    [[nodiscard]] const std::optional<CacheProblem>& refused() const noexcept { return refused_; }
    /// The file in it, of which the last name of the path counts. Calls answer with error() if there is one.
    [[nodiscard]] util::At at(const std::filesystem::path& file) const;
    [[nodiscard]] util::At itself() const { return {reference(), "."}; }

    /// Whether it is still as it was found: somebody may have given rights away.
    [[nodiscard]] bool is_still_fit(const Writers& trusted) const;

 private:
    [[nodiscard]] int reference() const noexcept { return error_ != 0 ? error_ : open_.descriptor(); }
    void enter(std::string_view path, const Writers& trusted, Missing missing);
    void check(std::string_view path, FolderUse use, const Writers& trusted);

    util::FileSystem* files_;
    util::OpenFile open_;
    int error_;
    std::optional<CacheProblem> refused_;
};

/// The folder of `file`, which is in the layer.
[[nodiscard]] Folder folder_of(const Layer& layer, const std::filesystem::path& file,
                               Folder::Missing missing = Folder::Missing::stays);

/// What is known of `file`, which is in the layer: zero or a negated errno.
[[nodiscard]] int look_at(const Layer& layer, const std::filesystem::path& file, util::FileStatus& status);

/// The folder of a layer's kernels as it was opened last, so that a hit goes one level rather than four. What is not
/// found in it is looked for anew from the root, as the layer may have been removed and made again since. Thread-safe.
class KeptFolder {
 public:
    /// Null when there is none that is fit.
    [[nodiscard]] std::shared_ptr<const Folder> get(const Layer& layer) const;
    void keep(Folder kernels);

 private:
    mutable std::mutex mutex_;
    std::shared_ptr<const Folder> folder_;  // guarded by mutex_
};

}  // namespace smlora::cache
