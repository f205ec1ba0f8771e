#include "cache/folder.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace smlora::cache {
namespace {

// A reference to a folder takes no right to list it. With O_NOFOLLOW it may be one to a link, through which nothing can
// be opened, and which check() finds out.
constexpr int reference_only = O_PATH;

std::string_view last_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

std::filesystem::path version_folder(const std::filesystem::path& root) { return root / "v1"; }

std::filesystem::path kernels_folder(const std::filesystem::path& root) { return version_folder(root) / "kernels"; }

std::filesystem::path tuning_folder(const std::filesystem::path& root) { return version_folder(root) / "tuning"; }

Folder::Folder(const Layer& layer, const std::filesystem::path& path, Missing missing)
    : files_(&layer.files),
      open_(layer.files, util::At(layer.root), reference_only | O_DIRECTORY),
      error_(open_.error()) {
    if (error_ == 0) check(layer.root.native(), FolderUse::writable, layer.records);
    const std::string_view whole = path.native();
    const std::string& root = layer.root.native();
    std::size_t end = root == "/" ? 0 : root.size();
    const Writers* trusted = &layer.records;
    for (int depth = 1; error_ == 0 && end < whole.size(); ++depth) {
        end = std::min(whole.find('/', end + 1), whole.size());
        const std::string_view here = whole.substr(0, end);
        if (depth == 2 && last_name(here) == "kernels") trusted = &layer.kernels;
        enter(here, *trusted, missing);
    }
}

Folder::Folder(const Layer& layer, const Folder& kernels, std::string name)
    : files_(&layer.files),
      open_(layer.files, util::At(kernels.reference(), name), reference_only),
      error_(open_.error()) {
    if (error_ == 0) check((kernels_folder(layer.root) / name).native(), FolderUse::inside, layer.kernels);
}

void Folder::enter(std::string_view path, const Writers& trusted, Missing missing) {
    const util::At next(open_.descriptor(), std::string(last_name(path)));
    util::OpenFile opened(*files_, next, reference_only);
    if (opened.error() == -ENOENT && missing == Missing::is_made) {
        error_ = files_->make_folder(next, 0700);
        if (error_ != 0 && error_ != -EEXIST) return;
        opened = util::OpenFile(*files_, next, reference_only);
    }
    error_ = opened.error();
    if (error_ != 0) return;
    open_ = std::move(opened);
    check(path, FolderUse::inside, trusted);
}

void Folder::check(std::string_view path, FolderUse use, const Writers& trusted) {
    util::FileStatus status;
    error_ = files_->status(open_.descriptor(), status);
    if (error_ != 0) return;
    if (auto refusal = refusal_of_folder(path, status, use, trusted)) {
        refused_ = {path, std::move(*refusal)};
        error_ = -EPERM;
    }
}

bool Folder::is_still_fit(const Writers& trusted) const {
    util::FileStatus status;
    return error_ == 0 && files_->status(open_.descriptor(), status) == 0 &&
           !refusal_of_folder({}, status, FolderUse::inside, trusted);
}

util::At Folder::at(const std::filesystem::path& file) const {
    return {reference(), std::string(last_name(file.native()))};
}

Folder folder_of(const Layer& layer, const std::filesystem::path& file, Folder::Missing missing) {
    return {layer, file.parent_path(), missing};
}

int look_at(const Layer& layer, const std::filesystem::path& file, util::FileStatus& status) {
    return layer.files.status(folder_of(layer, file).at(file), status);
}

std::shared_ptr<const Folder> KeptFolder::get(const Layer& layer) const {
    std::shared_ptr<const Folder> folder;
    {
        const std::lock_guard lock(mutex_);
        folder = folder_;
    }
    return folder && folder->is_still_fit(layer.kernels) ? folder : nullptr;
}

void KeptFolder::keep(Folder kernels) {
    auto folder = std::make_shared<const Folder>(std::move(kernels));
    const std::lock_guard lock(mutex_);
    folder_.swap(folder);
}

}  // namespace smlora::cache
