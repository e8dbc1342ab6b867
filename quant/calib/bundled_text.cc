#include "quant/calib/token_stream.h"

// QUANTMILL_CALIBRATION_TEXT is the path of calib_data/calibration.txt, given by CMake. The text
// becomes part of the binary, which thus needs no files of its own at run time.
asm(".section .rodata\n"
    ".global quantmill_calibration_text\n"
    ".global quantmill_calibration_text_end\n"
    "quantmill_calibration_text:\n"
    ".incbin \"" QUANTMILL_CALIBRATION_TEXT
    "\"\n"
    "quantmill_calibration_text_end:\n"
    ".byte 0\n"
    ".previous\n");

extern "C" {
extern const char quantmill_calibration_text[];
extern const char quantmill_calibration_text_end[];
}

namespace quantmill {

std::string_view BundledCalibrationText() {
  return {quantmill_calibration_text,
          static_cast<size_t>(quantmill_calibration_text_end - quantmill_calibration_text)};
}

}  // namespace quantmill
