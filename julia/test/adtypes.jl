using UDLBridge.ADTypes: AutoForwardDiff, AutoMooncake, AutoZygote

"what the package has no rule for, of any numbers"
struct Waved{A}
    w::A
end
Flux.@layer Waved
(b::Waved)(x) = b.w .* sin.(x) .+ b.w .^ 2

"layers by name"
struct Named{D}
    layers::D
end
Flux.@layer Named
(n::Named)(x) = n.layers[:b](n.layers[:a](x))

@testset "adtypes" begin
    rng = Xoshiro(3)
    X, X2 = randn(rng, 3, 4), randn(rng, 3, 2)
    W = randn(rng, 4, 3)
    chain = Chain(Dense(W, randn(rng, 4), tanh), Waved(randn(rng, 4)), Dense(randn(rng, 3, 4), randn(rng, 3), tanh), Dense(W, false))
    tied = Chain(Dense(W, randn(rng, 4), tanh), Dense(W', false))

    @testset "the same kernel by $adtype" for adtype in (AutoZygote(), AutoForwardDiff(), AutoForwardDiff(chunksize=3))
        for network in (chain, tied), outputs in (:trace, :full, :sum, 2)
            @test ntk(network, X; adtype, outputs) ≈ ntk(network, X; outputs) rtol = 1e-12
        end
        @test ntk(chain, X, X2; adtype, params=["1.w", "2.bias"]) ≈ ntk(chain, X, X2; params=["1.w", "2.bias"]) rtol = 1e-12
        for (one, other) in zip(jacobian(tied, X; adtype), jacobian(tied, X))
            @test first(one) == first(other) && last(one) ≈ last(other)
        end
        @test eltype(ntk(f32(chain), Float32.(X); adtype)) == Float32
    end

    @testset "parts in a dictionary, and none with parameters" begin
        named = Named(Dict(:a => Dense(W, false, tanh), :b => Dense(randn(rng, 2, 4), false)))
        layers = Chain(named.layers[:a], named.layers[:b])
        @test ntk(Chain(named, Dropout(0.5)), X; adtype=AutoForwardDiff()) ≈ ntk(layers, X) rtol = 1e-12
        @test ntk(Chain(named, Dropout(0.5)), X) ≈ ntk(layers, X) rtol = 1e-12
    end

    @testset "what is not there is refused" begin
        @test_throws "with method = :structured" ntk(chain, X; adtype=AutoForwardDiff(), method=:structured)
        @test_throws "allowed: nothing, AutoZygote()" ntk(chain, X; adtype=:zygote)
    end

    package = Base.identify_package("DifferentiationInterface")
    @testset "DifferentiationInterface brings the others" begin
        if package === nothing
            @test_throws "using Mooncake, DifferentiationInterface" ntk(chain, X; adtype=AutoMooncake(; config=nothing))
        else
            adtype = Base.invokelatest(Base.require(package).AutoSimpleFiniteDiff)
            @test Base.get_extension(UDLBridge, :UDLBridgeDifferentiationInterfaceExt) !== nothing
            @test Base.invokelatest(ntk, chain, X; adtype) ≈ ntk(chain, X) rtol = 1e-6
        end
    end
end
