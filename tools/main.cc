// quantmill: parses the command line, runs one command, turns failures into exit codes.
#include <malloc.h>

#include <exception>
#include <filesystem>
#include <new>
#include <string_view>
#include <system_error>

#include "kernels/core/error.h"
#include "tools/command_line.h"
#include "tools/console.h"
#include "tools/signals.h"
#include "tools/version.h"

namespace quantmill {
namespace {

// Before flags are parsed: errors of parsing have to know it.
bool AsksForJson(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--json") return true;
  }
  return false;
}

int RunRequest(const Request& request, const CommandLine& line, bool json) {
  if (request.command != nullptr) {
    Console console(json, request.command->common().quiet);
    return request.command->Run(console);
  }
  const Console console(false, false);
  if (request.version) {
    const VersionReport report = DescribeVersion();
    console.Write(json ? JsonText(ToJson(report)) : ToText(report));
    return 0;
  }
  if (!request.text.empty()) {
    console.Write(request.text);
    return 0;
  }
  console.Note(line.ShortHelp());
  return static_cast<int>(ErrorCode::kUsage);
}

int Report(const Console& console, const Error& error) {
  console.WriteError(error);
  return static_cast<int>(error.code());
}

// Codes and weights of layers come and go in blocks of many sizes. glibc would move its limit for
// mapping a block up to the largest one freed, keep such blocks in its heap, and fragment it by a
// few MiB a layer; with a fixed limit their memory goes back to the system at once.
void KeepHeapSmall() {
#ifdef M_MMAP_THRESHOLD
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

int Main(int argc, const char* const* argv) {
  KeepHeapSmall();
  const bool json = AsksForJson(argc, argv);
  const Console console(json, false);
  try {
    CommandLine line;
    return RunRequest(line.Parse(argc, argv), line, json);
  } catch (const OutputClosed&) {
    return 0;
  } catch (const Error& error) {
    return Report(console, error);
  } catch (const std::bad_alloc&) {
    return Report(console, Error(ErrorCode::kEnvironment, "",
                                 "out of memory; close other programs or use a machine with more"));
  } catch (const std::filesystem::filesystem_error& error) {
    return Report(console,
                  Error(ErrorCode::kEnvironment, error.path1().string(), error.code().message()));
  } catch (const std::system_error& error) {  // a thread that the system does not allow
    return Report(console, Error(ErrorCode::kEnvironment, "",
                                 std::string(error.what()) +
                                     "; a limit of this process or machine is too low (ulimit)"));
  } catch (const std::exception& error) {
    console.WriteBug(error.what());
    return kExitBug;
  }
}

}  // namespace
}  // namespace quantmill

int main(int argc, char** argv) {
  quantmill::InstallSignalHandling();
  return quantmill::Main(argc, argv);
}
