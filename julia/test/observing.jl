# Layers of others, as the docstring of `build_layer` says: a method of `fields` makes them known.

"y = a .* tanh.(W x): the kinds differ in what their methods of `observed` do"
abstract type ScaledTanh end
(l::ScaledTanh)(x) = l.scale .* tanh.(l.weight * x)
UDLBridge.fields(::ScaledTanh) = ("weight" => :weight, "scale" => :scale)
shown_parts(l, x, see) = see(UDLBridge.Elementwise(Flux.Scale(l.scale, false)), tanh.(see(UDLBridge.Affine(Dense(l.weight, false)), x)))

for kind in (:Gated, :HalfSeen, :Doubled, :Mixing, :Shown)
    @eval begin
        struct $kind{A<:AbstractVector,W<:AbstractMatrix} <: ScaledTanh
            scale::A
            weight::W
        end
        Flux.@layer $kind
    end
end

# Gated has none. This one forgets the scale:
UDLBridge.observed(l::HalfSeen, x, see) = l.scale .* tanh.(see(UDLBridge.Affine(Dense(l.weight, false)), x))
# It shows all, and computes twice the layer:
UDLBridge.observed(l::Doubled, x, see) = 2 .* shown_parts(l, x, see)
# It is right for one sample alone:
(l::Mixing)(x) = l.scale .* tanh.(l.weight * x) .+ sum(x; dims=1)
UDLBridge.observed(l::Mixing, x, see) = shown_parts(l, x, see) .+ sum(x)
# It is right:
UDLBridge.observed(l::Shown, x, see) = shown_parts(l, x, see)

"it shows nothing"
struct Silent{W<:AbstractMatrix}
    weight::W
end
Flux.@layer Silent
(l::Silent)(x) = l.weight * x
UDLBridge.observed(l::Silent, x, see) = l(x)

"no parameters, and a method of `observed` that computes something else"
struct Squared end
(::Squared)(x) = x .^ 2
UDLBridge.observed(::Squared, x, see) = 3 .* x .^ 2

@testset "layers of others" begin
    rng = Xoshiro(21)
    dense(pair) = f64(Dense(pair, tanh))
    X = randn(rng, 3, 5)
    @testset "$kind" for kind in (Gated, HalfSeen, Doubled, Mixing, Shown)
        own() = kind(randn(rng, 4), randn(rng, 4, 4))
        inside = SkipConnection(Chain(own(), dense(4 => 4)), +)
        chain = Chain(dense(3 => 4), own(), inside, dense(4 => 2))
        beside = Chain(dense(3 => 4), Parallel(+, own(), dense(4 => 4)), dense(4 => 2))
        for outputs in (1, :full), network in (chain, beside)
            @test gap(ntk(network, X; outputs), ntk(network, X; outputs, method=:plain)) < 1e-12
        end
        for name in ("1.weight", "1.scale", "2.0.scale", "3.bias")
            @test gap(ntk(chain, X; params=[name]), ntk(chain, X; params=[name], method=:plain)) < 1e-12
        end
    end

    @testset "a method of `observed` counts where it is right, and is ignored where it is not" begin
        sites(layer) = (see = UDLBridge.Recorder(); UDLBridge.observed(Chain(layer), randn(rng, 4, 2), see); see.sites)
        # A warning comes once for each kind, and those above had theirs.
        silent = Silent(randn(rng, 4, 4))
        @test_logs (:warn, r"`observed` for Silent is not used") match_mode = :any sites(silent)
        @test_logs min_level = Base.CoreLogging.Warn sites(Shown(randn(rng, 4), randn(rng, 4, 4)))
        for (kind, as) in ((Shown, UDLBridge.Affine), (Doubled, UDLBridge.Whole), (Mixing, UDLBridge.Whole), (HalfSeen, UDLBridge.Whole))
            @test first(sites(kind(randn(rng, 4), randn(rng, 4, 4)))) isa as
        end
        chain = Chain(dense(3 => 4), Squared(), dense(4 => 2))
        @test gap(ntk(chain, X), ntk(chain, X; method=:plain)) < 1e-12
    end

    @testset "branches and functions of others: $name" for (name, chain) in (
        "a connection of theirs" => Chain(SkipConnection(dense(3 => 4), vcat), dense(7 => 2)),
        "two branches" => Chain(dense(3 => 4), Parallel((a, b) -> a .* b, dense(4 => 4), dense(4 => 4)), dense(4 => 2)),
        "one branch that nothing depends on" => Chain(dense(3 => 4), Parallel((a, b) -> a, dense(4 => 2), dense(4 => 2))),
        "a branch without parameters" => Chain(dense(3 => 4), SkipConnection(x -> 2 .* x, +), dense(4 => 2)),
        "a closure as activation" => Chain(f64(Dense(3 => 4, z -> z * tanh(z))), dense(4 => 2)),
        "outputs that depend on the last layer alone" => Chain(dense(3 => 4), x -> one.(x), dense(4 => 2)),
    )
        for outputs in (1, :full)
            @test gap(ntk(chain, X; outputs), ntk(chain, X; outputs, method=:plain)) < 1e-12
        end
    end
end
