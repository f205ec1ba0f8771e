// Marks what the shared library exports; everything else in it is hidden.
#pragma once

#if defined(__GNUC__)
#define SMLORA_API __attribute__((visibility("default")))
#else
#define SMLORA_API
#endif
