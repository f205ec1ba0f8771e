# Everything comes from the system's packages; docs/design.md says why each one is there.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
# Only the headers (cuda.h, nvrtc.h): both libraries are opened at run time.
find_package(CUDAToolkit 12.0 REQUIRED)
