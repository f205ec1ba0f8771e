# Installs the build tree into a staging folder, moves that to PREFIX, and checks that what users rely on is there.
file(REMOVE_RECURSE ${PREFIX} ${PREFIX}.staging)
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${PREFIX}.staging COMMAND_ERROR_IS_FATAL ANY)
file(RENAME ${PREFIX}.staging ${PREFIX})

set(expected
  include/smlora/smlora.h include/smlora/smlora.hpp include/smlora/operations.hpp include/smlora/version.hpp
  ${LIBDIR}/libsmlora.so ${LIBDIR}/libsmlora.so.${VERSION}
  ${LIBDIR}/cmake/smlora/smloraConfig.cmake ${LIBDIR}/cmake/smlora/smloraConfigVersion.cmake
  share/doc/smlora/LICENSE share/doc/smlora/README.md share/smlora/kernel_templates/LICENSE
  share/smlora/cache/README.md)
if(TOOL)
  list(APPEND expected bin/smlora-tune)
endif()
foreach(file IN LISTS expected)
  if(NOT EXISTS ${PREFIX}/${file})
    message(FATAL_ERROR "not installed: ${file}")
  endif()
endforeach()
