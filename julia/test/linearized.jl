@testset "linearised training of a $(nameof(typeof(start)))" for start in (
    random_chain(Xoshiro(7), (4, 6, 2), tanh),
    UDLBridge.graph("""{"params": ["a", "b"], "buffers": [], "output": "y", "sample_shape": [4], "tokens": false, "dtype": "float64", "nodes": [
        {"name": "h", "op": "linear", "inputs": ["x", "a"], "attributes": {}}, {"name": "t", "op": "tanh", "inputs": ["h"], "attributes": {}},
        {"name": "y", "op": "linear", "inputs": ["t", "b"], "attributes": {}}]}""",
        Dict("a" => randn(Xoshiro(8), 4, 6) ./ 2, "b" => randn(Xoshiro(9), 6, 2) ./ 2)),
)
    rng = Xoshiro(7)
    X, Y = randn(rng, 4, 9), randn(rng, 2, 9)
    trained = deepcopy(start)
    rate = 0.05
    t = Training(trained, X, Y, UDLBridge.AtStart(Flux.mse, start); optimiser=Flux.Descent(1.0), rates=rate)
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
    f = UDLBridge.linear_outputs(start, X, UDLBridge.moves(trained, start))
    @test vec(f .- Y) ≈ r rtol = 1e-10
    @test gap(f, outputs(trained, X)) > 1e-4
end
