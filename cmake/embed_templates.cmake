# Embeds kernel_templates/ into the library, so that it compiles kernels without a folder beside it. Included, this file
# defines smlora_embed_templates(target); run with `cmake -P` during the build, it writes the source of that target.
if(CMAKE_SCRIPT_MODE_FILE)
  # FOLDER: the templates' root. LIST: a file with their names relative to it, one a line. OUTPUT: the source to write.
  file(STRINGS ${LIST} names)
  set(code "// Made from kernel_templates/ by cmake/embed_templates.cmake.\n#include \"jit/embedded_templates.hpp\"\n\n")
  string(APPEND code "namespace smlora::jit {\n\nstd::vector<EmbeddedTemplate> embedded_templates() {\n    return {\n")
  foreach(name IN LISTS names)
    file(READ ${FOLDER}/${name} text)
    string(APPEND code "        {\"${name}\", R\"smlora_text(${text})smlora_text\"},\n")
  endforeach()
  string(APPEND code "    };\n}\n\n}  // namespace smlora::jit\n")
  file(WRITE ${OUTPUT} "${code}")
  return()
endif()

# In the directory that made `target`, because a custom command's output is known only there.
function(smlora_embed_templates target)
  set(folder ${PROJECT_SOURCE_DIR}/kernel_templates)
  file(GLOB_RECURSE names RELATIVE ${folder} CONFIGURE_DEPENDS ${folder}/*.cuh ${folder}/*.h)
  list(SORT names)
  list(TRANSFORM names PREPEND ${folder}/ OUTPUT_VARIABLE files)
  # The list is a file of its own and a dependency: a template that is removed must rebuild too.
  list(JOIN names "\n" lines)
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/kernel_templates.txt CONTENT "${lines}\n" @ONLY)
  set(output ${PROJECT_BINARY_DIR}/embedded_templates.cpp)
  set(script ${PROJECT_SOURCE_DIR}/cmake/embed_templates.cmake)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DFOLDER=${folder} -DLIST=${PROJECT_BINARY_DIR}/kernel_templates.txt -DOUTPUT=${output}
            -P ${script}
    DEPENDS ${files} ${script} ${PROJECT_BINARY_DIR}/kernel_templates.txt
    COMMENT "Embedding the kernel templates"
    VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
