using Documenter: DocMeta, doctest

@testset "examples in docstrings" begin
    DocMeta.setdocmeta!(UDLBridge, :DocTestSetup, :(using Flux, UDLBridge); recursive=true)
    doctest(UDLBridge; manual=false)
end
