# What every target of the project is compiled with.
add_library(smlora_options INTERFACE)
target_compile_options(smlora_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror)
if(SMLORA_SANITIZE)
  target_compile_options(smlora_options INTERFACE -fsanitize=${SMLORA_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(smlora_options INTERFACE -fsanitize=${SMLORA_SANITIZE})
endif()
# A type of an anonymous namespace in a class of a source file is a fault only where others include the file, as a unit does.
if(CMAKE_UNITY_BUILD)
  target_compile_options(smlora_options INTERFACE -Wno-subobject-linkage)
endif()
