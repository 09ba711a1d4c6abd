# What `cmake --install` puts where, and the Debian packages (`cpack`): `ecopipe` is for running, `libecopipe-dev` for
# programs that use the libraries through find_package(ecopipe).
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # what is not built cannot be packed, and says so
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS ecopipe-keygen ecopipe-train ecopipe-stage ecopipe-plan ecopipe-profile ecopipe-fl-model ecopipe-fl-server ecopipe-fl-sim
    ecopipe-bench
    RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
install(PROGRAMS scripts/launch_stages.sh DESTINATION ${CMAKE_INSTALL_BINDIR} RENAME ecopipe-launch-stages COMPONENT programs)
install(PROGRAMS scripts/compare_runs.sh DESTINATION ${CMAKE_INSTALL_BINDIR} RENAME ecopipe-compare-runs COMPONENT programs)
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs FILES_MATCHING PATTERN "*.md" PATTERN "*.svg" PATTERN "*.png")
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs USE_SOURCE_PERMISSIONS)

# The units name the programs where they are installed, which is known only then. Settings are the administrator's to edit.
install(CODE "
    file(GLOB units \"${CMAKE_SOURCE_DIR}/scripts/systemd/*.service\")
    foreach(unit IN LISTS units)
        get_filename_component(name \${unit} NAME)
        file(READ \${unit} text)
        string(REPLACE /usr/local/bin/ \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/\" text \"\${text}\")
        file(WRITE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/lib/systemd/system/\${name}\" \"\${text}\")
    endforeach()
" COMPONENT programs)
file(GLOB settings CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/scripts/systemd/*.env ${CMAKE_SOURCE_DIR}/scripts/systemd/server.yaml)
install(FILES ${settings} DESTINATION /etc/ecopipe COMPONENT programs)

# ---- libraries -----------------------------------------------------------------------------------------------------
# Those whose headers are of use to others. The engine needs LibTorch and is a component of its own.
set(plain_libraries flags core domain planner transport web data graph_file stage_protocol fl_numbers fl_strategies fl_logic)
foreach(library IN LISTS plain_libraries ITEMS engine)
    set_target_properties(ecopipe_${library} PROPERTIES EXPORT_NAME ${library})
    add_library(ecopipe::${library} ALIAS ecopipe_${library})
endforeach()
list(TRANSFORM plain_libraries PREPEND ecopipe_ OUTPUT_VARIABLE plain_targets)
install(TARGETS ${plain_targets} EXPORT ecopipeTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(TARGETS ecopipe_engine EXPORT ecopipeEngineTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
foreach(module core domain planner transport stage_runtime fl_server)
    install(DIRECTORY ${module} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ecopipe COMPONENT development FILES_MATCHING PATTERN "*.h")
endforeach()
set(cmake_directory ${CMAKE_INSTALL_LIBDIR}/cmake/ecopipe)
foreach(set ecopipeTargets ecopipeEngineTargets)
    install(EXPORT ${set} NAMESPACE ecopipe:: DESTINATION ${cmake_directory} COMPONENT development)
endforeach()
configure_package_config_file(cmake/ecopipeConfig.cmake.in ${CMAKE_BINARY_DIR}/ecopipeConfig.cmake INSTALL_DESTINATION ${cmake_directory})
# Before 1.0 a minor version may change anything.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/ecopipeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/torch.cmake DESTINATION ${cmake_directory} RENAME ecopipeTorch.cmake COMPONENT development)
install(FILES ${CMAKE_BINARY_DIR}/ecopipeConfig.cmake ${CMAKE_BINARY_DIR}/ecopipeConfigVersion.cmake
    DESTINATION ${cmake_directory} COMPONENT development)

# ---- packages ------------------------------------------------------------------------------------------------------
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ecopipe)
set(CPACK_PACKAGE_VENDOR "ecopipe")
set(CPACK_PACKAGE_CONTACT "ecopipe maintainers <ecopipe@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "pipeline-parallel training on several small devices")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL programs development)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_NAME ecopipe)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_SHLIBDEPS ON)
# Reference BLAS computes other bits, 15 to 50 times slower.
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_DEPENDS "libopenblas0-pthread")
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_SUGGESTS "dataset-fashion-mnist, python3, python3-yaml, openssh-client")
set(CPACK_COMPONENT_PROGRAMS_DESCRIPTION "Programs that train one network on several unequal devices, plan it and federate it, with systemd units.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libecopipe-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
    "libzmq3-dev, libsodium-dev, libssl-dev, libfmt-dev, libspdlog-dev, nlohmann-json3-dev, libyaml-cpp-dev, libexpected-dev, libboost-dev, libboost-program-options-dev, libcereal-dev, cppzmq-dev, zlib1g-dev, libjpeg-dev, libpng-dev, pkg-config")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS "libtorch-dev")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "Headers, static libraries and find_package(ecopipe) of ecopipe.")
# Files below /etc are the administrator's: an upgrade asks before it replaces one that was edited.
set(conffiles "")
foreach(file IN LISTS settings)
    get_filename_component(name ${file} NAME)
    string(APPEND conffiles "/etc/ecopipe/${name}\n")
endforeach()
file(WRITE ${CMAKE_BINARY_DIR}/package/conffiles "${conffiles}")
configure_file(cmake/postinst ${CMAKE_BINARY_DIR}/package/postinst COPYONLY)
configure_file(cmake/postrm ${CMAKE_BINARY_DIR}/package/postrm COPYONLY)
set(CPACK_DEBIAN_PROGRAMS_PACKAGE_CONTROL_EXTRA
    ${CMAKE_BINARY_DIR}/package/conffiles ${CMAKE_BINARY_DIR}/package/postinst ${CMAKE_BINARY_DIR}/package/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
