# Everything comes from the system's packages; docs/design.md says why each one is there.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
# fmt as a static library; fmt.cpp says why. smlora_options: what sanitizers need.
add_library(smlora_fmt STATIC ${CMAKE_CURRENT_LIST_DIR}/fmt.cpp)
target_include_directories(smlora_fmt SYSTEM PUBLIC
  $<TARGET_PROPERTY:fmt::fmt-header-only,INTERFACE_INCLUDE_DIRECTORIES>)
target_link_libraries(smlora_fmt PRIVATE smlora_options)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
# Only the headers (cuda.h, nvrtc.h): both libraries are opened at run time.
find_package(CUDAToolkit 12.0 REQUIRED)
