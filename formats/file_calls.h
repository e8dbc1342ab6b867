// The system calls of this folder that write, with the faults of file_faults.h in front of them.
// Private to formats/. Each behaves as the call it is named after: a result and errno.
#ifndef QUANTMILL_FORMATS_FILE_CALLS_H_
#define QUANTMILL_FORMATS_FILE_CALLS_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace quantmill::calls {

int Create(const char* path);  // exclusive, for writing
int64_t WriteAt(int fd, const std::byte* bytes, size_t size, uint64_t offset);
int Reserve(int fd, uint64_t size);  // grows the file, never shrinks it
int StartWriteback(int fd);          // of all that was written; does not wait for the disk
int Sync(int fd);
int Rename(const char* from, const char* to);           // replaces `to`
int RenameExclusive(const char* from, const char* to);  // EEXIST if there is a `to`

int Exchange(const char* one, const char* two);  // EINVAL or ENOSYS where impossible

}  // namespace quantmill::calls

namespace quantmill {

// "No space left on device: free some space or choose another output folder", from errno.
std::string Explain(int error);

// fsync of a folder, so that the names in it survive a crash. Throws Error(kEnvironment).
void SyncFolder(const std::filesystem::path& folder);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_FILE_CALLS_H_
