@testset "layers" begin
    spec = """{"format": 1, "dtype": "float64", "layers": [
        {"kind": "flatten"},
        {"kind": "dense", "in_features": 2, "out_features": 3, "activation": "tanh", "bias": true},
        {"kind": "dense", "in_features": 3, "out_features": 1, "activation": "identity", "bias": false},
        {"kind": "softmax"}]}"""
    # Canonical arrays come with reversed axes: weight (out, in) as (in, out).
    W, b, V = randn(2, 3), randn(3), randn(3, 1)
    params = Dict("1.weight" => W, "1.bias" => b, "2.weight" => V)
    chain = build(spec, params)
    @test first.(parameters(chain)) == ["1.weight", "1.bias", "2.weight"]
    @test chain[2].weight == W'
    @test chain[3].bias === false
    x = randn(2, 5)
    @test chain[1:3](x) ≈ V' * tanh.(W' * x .+ b)

    @test_throws ArgumentError build("""{"layers": [{"kind": "hologram"}]}""", Dict())
    @test_throws ArgumentError UDLBridge.activation("gelu")
    @test UDLBridge.activation("gelu_tanh")(1.0) ≈ NNlib.gelu_tanh(1.0)
    @test UDLBridge.activation("gelu_erf")(1.0) ≈ NNlib.gelu_erf(1.0)
    @test length(UDLBridge.ACTIVATIONS) == 15
end
