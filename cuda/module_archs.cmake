# bitloom_cuda_module_archs(<variable> <module> <kind> <arch>...): which of these architectures the module is compiled for.
# Modules of fp8 have code only for devices whose mma.sync multiplies e4m3 itself: sm_89 and, up to now, sm_120 (sm_90 and
# sm_100 turn it into conversions and f16). PTX (kind ptx) runs on later devices too, so that of sm_89 is left out.
function(bitloom_cuda_module_archs variable module kind)
  set(archs ${ARGN})
  if(module MATCHES "_fp8$")
    list(FILTER archs INCLUDE REGEX "^(89|12[0-9])$")
    if(kind STREQUAL ptx)
      list(FILTER archs EXCLUDE REGEX "^89$")
    endif()
  endif()
  set(${variable} ${archs} PARENT_SCOPE)
endfunction()
