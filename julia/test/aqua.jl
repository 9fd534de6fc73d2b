using Aqua: Aqua

@testset "Aqua" begin
    # Persistent tasks are looked for in a package that Pkg makes and precompiles, which takes a registry.
    Aqua.test_all(UDLBridge; persistent_tasks=false)
end
