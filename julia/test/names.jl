@testset "names" begin
    Zygote = UDLBridge.Zygote
    exported = filter(name -> Base.isexported(UDLBridge, name), names(UDLBridge))
    @test isempty(intersect(exported, [names(Zygote); names(Flux); names(Base); names(LinearAlgebra)]))
    general = (:jacobian, :pull, :push, :build, :outputs, :parameters, :signals, :save, :load, :optimiser, :network)
    @test isempty(intersect(exported, general))
    @test all(name -> isdefined(UDLBridge, name), general)
    both_ways = Test.detect_ambiguities(UDLBridge, Zygote)
    @test isempty(filter(pair -> any(m -> m.module === UDLBridge, pair), both_ways))
end
