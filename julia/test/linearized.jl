@testset "linearised training" begin
    rng = Xoshiro(7)
    X, Y = randn(rng, 4, 9), randn(rng, 2, 9)
    start = random_chain(rng, (4, 6, 2), tanh)
    chain = deepcopy(start)
    rate = 0.05
    t = Training(chain, X, Y, UDLBridge.AtStart(Flux.mse, start); optimiser=Flux.Descent(1.0), rates=rate)
    # Gradient descent on a linear model, by matrices: r <- (I - 2 rate / (n O) K) r for the residuals r.
    J = reduce(hcat, (reshape(last(block), :, 18)' for block in jacobian(start, X)))
    r = vec(outputs(start, X) .- Y)
    losses = Float64[]
    for _ in 1:10
        push!(losses, sum(abs2, r) / length(r))
        r -= 2 * rate / length(r) .* (J * (J' * r))
    end
    found = reduce(vcat, epoch!(t, 1:9, 9) for _ in 1:10)
    @test found ≈ losses rtol = 1e-10
    f = UDLBridge.linear_outputs(start, X, UDLBridge.moves(chain, start))
    @test vec(f .- Y) ≈ r rtol = 1e-10
    @test gap(f, outputs(chain, X)) > 1e-4
end
