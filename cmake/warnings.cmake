# What every target of the project is compiled with.
add_library(smlora_options INTERFACE)
target_compile_options(smlora_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror)
if(SMLORA_SANITIZE)
  target_compile_options(smlora_options INTERFACE -fsanitize=${SMLORA_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(smlora_options INTERFACE -fsanitize=${SMLORA_SANITIZE})
  # GCC checks each access through a pointer at a quarter of the compile time. An access to null ends with ASan's
  # report as well; with Clang, parsers are fuzzed with all checks.
  if(SMLORA_SANITIZE MATCHES undefined AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(smlora_options INTERFACE -fno-sanitize=null,alignment,object-size,vptr)
  endif()
endif()
# A type of an anonymous namespace in a class of a source file, or a name there that a local one hides, is a fault only
# where others include the file, as a unit does.
set(in_units $<BOOL:$<TARGET_PROPERTY:UNITY_BUILD>>)
target_compile_options(smlora_options INTERFACE
  $<${in_units}:-Wno-shadow> $<$<AND:${in_units},$<CXX_COMPILER_ID:GNU>>:-Wno-subobject-linkage>)
