"""How tests compile: hardly optimised, since almost all of their time is XLA's compiler's. It takes a quarter of the time; programs are slower."""


def flags(devices):
    """Returns XLA_FLAGS of a process with so many CPU devices."""
    return (
        f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        " --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
