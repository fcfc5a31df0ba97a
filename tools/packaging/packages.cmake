# SPDX-License-Identifier: Apache-2.0
# Debian packages by cpack: libkvmm0 (component kvmm), libkvmm-dev (dev), kvmm-tools (tools).
# tools/package builds them; a build whose prefix is not /usr would put files where Debian has none.

# The service is for who installs; systemctl enables it.
install(FILES ${CMAKE_CURRENT_LIST_DIR}/kvmm-mount@.service DESTINATION lib/systemd/system COMPONENT tools)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/kvmm.tmpfiles DESTINATION lib/tmpfiles.d RENAME kvmm.conf
        COMPONENT tools)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/seccomp.json DESTINATION ${CMAKE_INSTALL_DATADIR}/kvmm
        COMPONENT tools)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME kvmm)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The kvmm maintainers <maintainers@kvmm.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL kvmm dev tools)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS OFF)

set(CPACK_DEBIAN_KVMM_PACKAGE_NAME libkvmm0)
set(CPACK_DEBIAN_KVMM_PACKAGE_PROVIDES libkvmm)
set(CPACK_DEBIAN_KVMM_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/triggers)
set(CPACK_COMPONENT_KVMM_DESCRIPTION
    "Virtual memory for the KV cache of language models
 Sessions keep one address while their pages move between DRAM and NVMe: page tables, faults, reclaim,
 swap and readahead in user space, behind a C API.")

set(CPACK_DEBIAN_DEV_PACKAGE_NAME libkvmm-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libkvmm0 (= ${PROJECT_VERSION})")
set(CPACK_COMPONENT_DEV_DESCRIPTION
    "Virtual memory for the KV cache of language models: development files
 Headers of the C API and of drivers, a pkg-config file and a CMake package.")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME kvmm-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS "libkvmm0 (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS fuse3)
set(CPACK_COMPONENT_TOOLS_DESCRIPTION
    "Virtual memory for the KV cache of language models: tools
 kvctl to look at and tune running runtimes, kvbench, and the llama.cpp plugin.")
include(CPack)
