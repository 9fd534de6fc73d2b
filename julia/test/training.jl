using UDLBridge: optimiser, loss_function, slots, resume!, gather

"settings of every optimiser, as Python sends them"
const RECIPES = Dict(
    :sgd => Dict("weight_decay" => 0.0),
    :momentum => Dict("momentum" => 0.9, "weight_decay" => 0.01),
    :torch_momentum => Dict("momentum" => 0.9, "weight_decay" => 0.01),
    :nesterov => Dict("momentum" => 0.9, "weight_decay" => 0.0),
    :adam => Dict("beta1" => 0.9, "beta2" => 0.99, "eps" => 1e-8, "weight_decay" => 0.01),
    :adamw => Dict("beta1" => 0.9, "beta2" => 0.999, "eps" => 1e-8, "weight_decay" => 0.1),
    :rmsprop => Dict("rho" => 0.9, "eps" => 1e-8, "weight_decay" => 0.0),
)

"samples, one-hot targets and a fresh chain; the same each time"
function problem(T=Float64)
    rng = Xoshiro(1)
    X, labels = randn(rng, T, 4, 30), rand(rng, 1:3, 30)
    chain = Flux.fmap(a -> a isa Array ? T.(a) : a, random_chain(rng, [4, 6, 3], tanh))
    return chain, X, T.(Flux.onehotbatch(labels, 1:3))
end

function training(name::Symbol; T=Float64, rates=fill(0.05, 4), settings=RECIPES[name], kw...)
    chain, X, Y = problem(T)
    return Training(chain, X, Y, Flux.logitcrossentropy; optimiser=optimiser(name, settings), rates, kw...)
end

values_of(t::Training) = last.(parameters(t.chain))

@testset "training" begin
    order = [randperm(Xoshiro(2), 30); randperm(Xoshiro(3), 30)]

    @testset "an epoch is Flux's own loop: $name" for name in keys(RECIPES)
        t = training(name)
        losses = epoch!(t, order, 8)
        chain, X, Y = problem()
        state = Flux.setup(optimiser(name, RECIPES[name]), chain)
        Flux.adjust!(state, 0.05)
        expected = map(Iterators.partition(order, 8)) do batch
            loss, (g,) = Flux.withgradient(m -> Flux.logitcrossentropy(m(X[:, batch]), Y[:, batch]), chain)
            Flux.update!(state, chain, g)
            loss
        end
        @test losses == expected
        @test length(losses) == 8
        @test t.step == 8
        @test values_of(t) == last.(parameters(chain))
    end

    @testset "a resumed training equals an uninterrupted one: $name, $T" for name in keys(RECIPES), T in (Float32, Float64)
        whole, first_half, second_half = training(name; T), training(name; T), training(name; T)
        a = epoch!(whole, order, 7, 0.5)
        b = epoch!(first_half, order[1:28], 7, 0.5)
        foreach(copyto!, values_of(second_half), values_of(first_half))
        kept = [deepcopy(slots(leaf.rule, leaf.state)) for leaf in first_half.optimiser_leaves]
        resume!(second_half, kept, first_half.step)
        c = epoch!(second_half, order[29:end], 7, 0.5)
        @test a == [b; c]
        @test values_of(whole) == values_of(second_half)
        @test whole.step == second_half.step
        @test eltype(values_of(whole)[1]) == T
    end

    @testset "rates belong to parameters" begin
        t = training(:sgd; rates=[0.0, 0.0, 0.1, 0.1])
        before = deepcopy(values_of(t))
        epoch!(t, order, 10)
        @test values_of(t)[1:2] == before[1:2]
        @test all(values_of(t)[3:4] .!= before[3:4])
    end

    @testset "one rate for all" begin
        a, b = training(:sgd; rates=0.05), training(:sgd)
        @test epoch!(a, order, 10) == epoch!(b, order, 10)
    end

    @testset "parameters that are views and transposes are trained in place" begin
        numbers = randn(Xoshiro(7), 3, 4)
        for weight in (view(numbers, :, 1:4), transpose(copy(transpose(numbers))))
            _, X, Y = problem()
            chain, copied = Chain(Dense(weight)), Chain(Dense(copy(weight)))
            trained = map((chain, copied)) do c
                Training(c, X, Y, Flux.logitcrossentropy; optimiser=optimiser(:adam, RECIPES[:adam]), rates=0.05)
            end
            @test epoch!(trained[1], order, 8) ≈ epoch!(trained[2], order, 8)
            @test chain[1].weight ≈ copied[1].weight && weight === chain[1].weight
            @test last.(pull(chain, X, Y)) ≈ last.(pull(copied, X, Y))
        end
    end

    @testset "clipping" begin
        chain, X, Y = problem()
        _, gradients = loss_gradient(Flux.logitcrossentropy, chain, X, Y)
        norm = sqrt(sum(g -> sum(abs2, g), gradients))
        for limit in (norm / 7, norm * 7)
            t = training(:sgd; rates=fill(1.0, 4), clip_norm=limit)
            before = deepcopy(values_of(t))
            epoch!(t, 1:30, 30)
            moved = sqrt(sum(((a, b),) -> sum(abs2, a .- b), zip(values_of(t), before)))
            @test moved ≈ min(norm, limit)
        end
    end

    @testset "the gradient of every loss, by finite differences" begin
        chain, X, Y = problem()
        for name in ("mse", "cross_entropy", "binary_cross_entropy")
            loss = loss_function(name)
            value, gradients = loss_gradient(loss, chain, X, Y)
            @test value == Flux.withgradient(m -> loss(m(X), Y), chain)[1]
            # Called by itself, Flux's loss sums by another method than under Zygote. Julia with -O1 compiles it to add number by number,
            # and takes what it finds compiled with -O2, as this package may be, which adds several at once: another order, no other sum.
            @test value ≈ loss(chain(X), Y) rtol = length(Y) * eps()
            for ((_, p), g) in zip(parameters(chain), gradients)
                direction = randn(Xoshiro(5), size(p))
                shifted = map((1e-6, -1e-6)) do h
                    p .+= h .* direction
                    result = loss(chain(X), Y)
                    p .-= h .* direction
                    result
                end
                @test sum(g .* direction) ≈ (shifted[1] - shifted[2]) / 2e-6 rtol = 1e-6 atol = 1e-9
            end
        end
    end

    @testset "a loss that is not finite ends the epoch without its step" begin
        t = training(:sgd)
        t.X[1, 12] = NaN
        losses = epoch!(t, 1:30, 5)
        @test length(losses) == 3
        @test isnan(losses[3]) && all(isfinite, losses[1:2])
        @test t.step == 2
        @test all(p -> all(isfinite, p), values_of(t))
    end

    @testset "a loss that takes logits, of a chain that has made probabilities" begin
        chain, X, Y = problem()
        trained(last, loss) = Training(Chain(chain..., last...), X, Y, loss; optimiser=Flux.Descent(), rates=0.1)
        for ending in ((softmax,), (Chain(softmax),))
            @test_throws "applies softmax itself, and the network ends in softmax" trained(ending, Flux.logitcrossentropy)
        end
        for ending in (softmax, logsoftmax, UDLBridge.Activation(sigmoid), f64(Dense(3 => 3, sigmoid)))
            @test_throws "applies sigmoid itself" trained((ending,), Flux.logitbinarycrossentropy)
        end
        for (ending, loss) in (((), Flux.logitcrossentropy), ((logsoftmax,), Flux.logitcrossentropy), ((softmax,), Flux.crossentropy))
            @test trained(ending, loss) isa Training
        end
    end

    @testset "what is refused" begin
        chain, X, Y = problem()
        rule = Flux.Descent()
        @test_throws ArgumentError loss_function("hinge")
        @test_throws ArgumentError optimiser(:lion, Dict("weight_decay" => 0.0))
        @test_throws DimensionMismatch Training(chain, X, Y[:, 1:9], Flux.mse; optimiser=rule, rates=ones(4))
        @test_throws DimensionMismatch Training(chain, X, Y, Flux.mse; optimiser=rule, rates=ones(3))
    end

    @testset "type stability" begin
        t = training(:adam; T=Float32)
        @test (@inferred epoch!(t, order, 8)) isa Vector{Float64}
        @test (@inferred gather(rand(2, 3, 4), [2, 1])) isa Array{Float64,3}
    end
end
