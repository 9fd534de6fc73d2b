@testset "kernel" begin
    rng = Xoshiro(2)

    @testset "the notebook's fixed network" begin
        chain = Chain(Dense(ones(Float32, 2, 2), ones(Float32, 2)), Dense(ones(Float32, 1, 2), ones(Float32, 1)))
        X = Float32[0.5852378 0.0976659; 0.62436277 0.55464536]
        K = ntk(chain, X; outputs=1)
        @test K ≈ Float32[14.2293 11.1088; 11.1088 9.09461] rtol = 1e-5
        @test spectrum(K).verdict == "PSD"
    end

    @testset "structured and plain, every reduction, bias $bias, softmax $(!isempty(final))" for bias in (true, false),
        final in ((), (softmax,))

        chain = random_chain(rng, (4, 5, 3), NNlib.gelu_tanh; bias, final)
        X, X2 = randn(rng, 4, 6), randn(rng, 4, 5)
        full = ntk(chain, X, X2; outputs=:full, method=:plain)
        @test size(full) == (6, 5, 3, 3)
        diagonal = cat((full[:, :, a, a] for a in 1:3)...; dims=3)
        scale = maximum(abs, full)
        expected = [
            :full => full,
            :diagonal => diagonal,
            :trace => dropdims(sum(diagonal; dims=3); dims=3),
            :mean => dropdims(sum(diagonal; dims=3); dims=3) ./ 3,
            :sum => dropdims(sum(full; dims=(3, 4)); dims=(3, 4)),
            2 => full[:, :, 2, 2],
            [3, 1] => diagonal[:, :, [3, 1]],
            2:3 => diagonal[:, :, 2:3],
            [2] => diagonal[:, :, [2]],
            Any[3, 0x01] => diagonal[:, :, [3, 1]],
        ]
        for (reduction, value) in expected, method in (:structured, :plain)
            @test maximum(abs, ntk(chain, X, X2; outputs=reduction, method) .- value) < 1e-12scale
        end
        @test ntk(chain, X) ≈ ntk(chain, X, X)
    end

    @testset "kernel is the product of Jacobians" begin
        chain = random_chain(rng, (3, 4, 2), tanh)
        X = randn(rng, 3, 4)
        product = sum(jacobian(chain, X)) do (_, block)
            G = reshape(block, :, 2, 4)
            [dot(G[:, a, i], G[:, b, j]) for i in 1:4, j in 1:4, a in 1:2, b in 1:2]
        end
        @test gap(ntk(chain, X; outputs=:full), product) < 1e-13
    end

    @testset "rectangles" begin
        chain = random_chain(rng, (3, 4, 2), tanh)
        X = randn(rng, 3, 9)
        r = UDLBridge.reduction(:trace, 2)
        f = UDLBridge.factors(chain, X, r, :structured)
        T = zeros(3, 4) # columns first: the memory of a C-order (rows, columns) array
        UDLBridge.rectangle!(T, r, f, 2:5, f, 7:9)
        @test T' ≈ ntk(chain, X)[2:5, 7:9]
    end

    @testset "a square in tiles up to its diagonal, outputs = $reduction, $method" for reduction in
                                                                                 (:full, :diagonal, [2, 1], :trace, :mean, :sum, 2),
        method in (:structured, :plain)

        chain = random_chain(rng, (3, 4, 2), tanh)
        n = 2isqrt(UDLBridge.TILE) + 3
        X = randn(rng, 3, n + 4)
        r = UDLBridge.reduction(reduction, 2)
        f = UDLBridge.factors(chain, X, r, method)
        # Not from the first sample on: the tiles' own rows begin elsewhere than the samples.
        whole = UDLBridge.rectangle!(zeros(UDLBridge.trailing(r, 2)..., n, n), r, f, 5:(n + 4), f, 5:(n + 4))
        lower = UDLBridge.rectangle!(fill!(similar(whole), NaN), r, f, 5:(n + 4), f, 5:(n + 4); lower=true)
        @test gap(UDLBridge.mirror!(lower), whole) < 1e-13
    end

    @testset "a chain without parameters has kernel zero" begin
        @test ntk(Chain(softmax), randn(rng, 3, 4)) == zeros(4, 4)
        @test ntk(Chain(softmax), randn(rng, 3, 4); method=:plain) == zeros(4, 4)
    end

    @testset "as many threads as was said" begin
        before, seen = BLAS.get_num_threads(), Int[]
        see() = UDLBridge.ChainRulesCore.ignore_derivatives(() -> Base.push!(seen, BLAS.get_num_threads()))
        chain = Chain(x -> (see(); x), f64(Dense(3 => 2)))
        ntk(chain, randn(rng, 3, 4); method=:plain, threads=before + 1)
        @test all(==(before + 1), seen) && BLAS.get_num_threads() == before
        @test_throws "threads = 0; allowed: 1 or more" ntk(chain, randn(rng, 3, 4); threads=0)
    end

    @testset "exactly symmetric, and little more than itself in memory" begin
        chain = random_chain(rng, (3, 4, 2), tanh)
        n = isqrt(UDLBridge.TILE) + 5
        for outputs in (1, :trace, :full)
            X = randn(rng, 3, n)
            K = ntk(chain, X; outputs)
            @test outputs === :full ? K == permutedims(K, (2, 1, 4, 3)) : K == transpose(K)
            @test gap(K, ntk(chain, X, copy(X); outputs)) < 1e-12
            @test (@allocated ntk(chain, X; outputs)) < 2sizeof(K) + 2^23
        end
    end

    @testset "types are known behind the choice of numbers and outputs" begin
        chain = random_chain(rng, (3, 4, 2), tanh)
        X = randn(rng, 3, 4)
        for (outputs, T) in ((1, Matrix), (:trace, Matrix), (:diagonal, Array{Float64,3}), (:full, Array{Float64,4}))
            r = UDLBridge.reduction(outputs, 2)
            found = UDLBridge.factors(chain, X, r, :structured)
            @test (@inferred UDLBridge.kernel_array(Float64, r, 2, found, 4)) isa T
            @test (@inferred UDLBridge.kernel_array(Float64, r, 2, found, 4, found, 4)) isa T
        end
    end

    @testset "what the type of a network tells is inferred: $T" for T in (Float32, Float64)
        convert_to = T === Float32 ? f32 : f64
        block = SkipConnection(Chain(Dense(4 => 4, relu), Dense(4 => 4; bias=false)), +)
        for (chain, X) in (
            (Chain(Dense(3 => 4, tanh), block, Dropout(0.1), Dense(4 => 2), softmax), randn(rng, T, 3, 4)),
            (Chain(; first=Dense(3 => 4), second=Dense(4 => 2)), randn(rng, T, 3, 4)),
            (Chain(Conv((2, 2), 1 => 2, relu), MaxPool((2, 2)), Flux.flatten, Dense(2 => 2)), randn(rng, T, 3, 3, 1, 4)),
            (Dense(3 => 2), randn(rng, T, 3, 4)),
        )
            chain = convert_to(chain)
            @test (@inferred ntk(chain, X)) isa Matrix{T}
            @test (@inferred ntk(chain, X, X)) isa Matrix{T}
            @test (@inferred ntk(chain, X; outputs=1)) isa Matrix{T}
            @test (@inferred input_jacobian(chain, X)) isa Array{T,ndims(X) + 1}
            @test (@inferred input_hessian(chain, X)) isa Array{T,4}
            @test (@inferred jacobian(chain, X)) isa Vector{Pair{String,Array{T}}}
            @test (@inferred ntk(chain, X; outputs=[2, 1])) isa Array{T,3}
            @test (@inferred ntk(chain, X; outputs=1:2)) isa Array{T,3}
            full(c, x) = ntk(c, x; outputs=:full)
            @test (@inferred full(chain, X)) isa Array{T,4}
            @test only(Base.return_types(ntk, Tuple{typeof(chain),typeof(X)})) === Matrix{T}
        end
        # A function may make other numbers: what it makes is known when it has run.
        narrow = f64(Chain(Dense(3 => 4), x -> Float32.(x)))
        @test ntk(narrow, randn(rng, 3, 4)) isa Matrix{Float32}
    end

    @testset "a kernel that is not finite is refused, with the entry" begin
        chain = Chain(Dense(ones(Float32, 1, 2), false))
        X = Float32[1 1.0f20; 1 1]
        @test_throws "NumericalError: K[2, 2] is Inf in Float32" ntk(chain, X)
        @test_throws "compute it in Float64 (f64(chain))" ntk(chain, X; method=:plain)
        @test_throws "K[2, 1] is NaN in Float32: a number on the way" ntk(chain, Float32[1 NaN; 1 1])
        @test_throws "scale the samples or the weights down" ntk(f64(chain), [1e200 0; 0 0])
        @test_throws UDLBridge.NumericalError infinite_ntk(Chain(Dense(2 => 3), Dense(3 => 1)), [1e200 1; 1 1]; w_std=1, b_std=0)
        large = 0.9 * sqrt(floatmax(Float64)) # entries whose sum alone is not finite are finite
        @test all(isfinite, ntk(f64(chain), [large large; 0 0]))
    end

    @testset "errors" begin
        chain = random_chain(rng, (3, 2), tanh)
        X = randn(rng, 3, 2)
        @test_throws ArgumentError ntk(chain, X; outputs=3)
        for outputs in (Int[], 1:0, [1, 1], [0, 1], 1:3, [1.0], [:trace], (1, 2), [1 2])
            @test_throws "allowed: an output's number from 1 to 2, a vector of some, each once" ntk(chain, X; outputs)
        end
        @test_throws "a mask is findall(mask)" ntk(chain, X; outputs=[true, false])
        @test_throws ArgumentError ntk(chain, X; outputs=:largest)
        @test_throws ArgumentError ntk(chain, X; method=:fast)
    end
end
