# What `cmake --install` puts where. The result may be moved as a whole.
include(CMakePackageConfigHelpers)
set(SMLORA_CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/smlora)
set(SMLORA_CACHE_LAYER ${CMAKE_INSTALL_DATADIR}/smlora/cache)

install(TARGETS smlora EXPORT smloraTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET smlora-tune)
  install(TARGETS smlora-tune RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY include/smlora DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_BINARY_DIR}/include/smlora/version.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/smlora)
install(DIRECTORY cache/ DESTINATION ${SMLORA_CACHE_LAYER})
# The pages, and all that they link to. A page that links to anything else fails a test.
install(FILES LICENSE README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN *.md PATTERN *.png)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
foreach(folder cache emulator)
  install(FILES ${folder}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR}/${folder})
endforeach()
# The templates are embedded in the library, and what they compile to ends up in users' caches: their licence goes along.
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/smlora/kernel_templates)

install(EXPORT smloraTargets NAMESPACE smlora:: DESTINATION ${SMLORA_CONFIG_DIR})
configure_package_config_file(cmake/smloraConfig.cmake.in ${PROJECT_BINARY_DIR}/smloraConfig.cmake
  INSTALL_DESTINATION ${SMLORA_CONFIG_DIR} PATH_VARS SMLORA_CACHE_LAYER)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/smloraConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/smloraConfig.cmake ${PROJECT_BINARY_DIR}/smloraConfigVersion.cmake
  DESTINATION ${SMLORA_CONFIG_DIR})
