@testset "samples" begin
    rng = Xoshiro(22)
    dense(pair, σ=tanh) = f64(Dense(pair, σ))
    chain = Chain(dense(3 => 4), dense(4 => 2))
    X = randn(rng, 3, 6)

    @testset "a function that mixes samples is refused: $name" for (name, mix) in (
        ("mean", x -> x .- sum(x; dims=2) ./ size(x, 2)),
        ("the last sample", x -> x .- x[:, end:end]),
        ("softmax over samples", x -> softmax(x; dims=2)),
        ("the sample before", x -> x .+ x[:, [1; 1:(end - 1)]]),
    )
        mixing = Chain(dense(3 => 4), mix, dense(4 => 2))
        for call in (ntk, jacobian, input_jacobian, input_hessian), mixed in (mixing, Chain(mix, dense(3 => 2)))
            @test_throws r"outputs that differ by .*the chain mixes samples" call(mixed, X)
        end
    end

    @testset "the model's numbers decide: X of $(eltype(raw))" for raw in
        (Float32.(X), round.(Int, 3 .* X), X .> 0, Flux.onehotbatch([1, 3, 2, 1], 1:3))

        exact = Float64.(raw)
        for call in (outputs, input_jacobian, input_hessian, ntk, jacobian)
            @test call(chain, raw) == call(chain, exact)
        end
        @test eltype(input_jacobian(f32(chain), exact)) == Float32
        @test eltype(input_hessian(f32(chain), exact)) == Float32
        @test eltype(ntk(f32(chain), exact)) == Float32
    end

    @testset "a layer that is no chain" begin
        d = chain[1]
        @test ntk(d, X) == ntk(Chain(d), X)
        @test first.(parameters(d)) == ["0.weight", "0.bias"]
        @test input_jacobian(d, X) == input_jacobian(Chain(d), X)
    end

    @testset "one-hot tokens are tokens" begin
        table = f64(Chain(Embedding(5 => 3), Dense(3 => 2), Flux.flatten))
        tokens = rand(rng, 1:5, 4, 3)
        @test ntk(table, Flux.onehotbatch(tokens, 1:5)) == ntk(table, tokens)
        @test_throws "exactly one true" ntk(table, trues(5, 4, 3))
    end

    @testset "errors say what was given and what is allowed" begin
        refused(text, model, x, more...; kw...) = @test_throws text ntk(model, x, more...; kw...)
        refused(r"outputs of size \(4, 2, 4\) of 4 samples; allowed: \(O, n\)", chain[1], randn(rng, 3, 2, 4))
        refused(r"outputs of size \(4,\) of 4 samples", Chain(x -> vec(sum(x; dims=1))), X)
        refused(r"makes a Float64", Chain(sum), X)
        refused("there is no sample in X of size (3, 0)", chain, zeros(3, 0))
        refused("X is a vector; allowed: (D..., n), samples last", chain, randn(rng, 3))
        refused("X has samples of size (3,), X2 of size (4,)", chain, X, randn(rng, 4, 2))
        refused("the chain has no layers", Chain(), X)
        refused("parameters of type ComplexF64", Chain(Dense(ones(ComplexF64, 2, 3))), X)
        refused("X has entries of type ComplexF64", chain, complex.(X))
        refused("params = \"0.weight\"; allowed: a vector of names", chain, X; params="0.weight")
        refused("method = \"plain\"; allowed: :structured, :plain", chain, X; method="plain")
        for wrong in ("trace", 1:3, nothing, 1.0, true, 3, 0, :largest)
            refused("outputs = $(repr(wrong)); allowed: an output's number from 1 to 2, a vector of some, each once, or :trace", chain, X; outputs=wrong)
        end
    end
end
