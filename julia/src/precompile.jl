# Zygote compiles for seconds at the first derivative in every process. What does not depend on a network's own types is
# compiled here, once, when the package is precompiled, and so are the layers that most networks have: kernels go layer by
# layer, so that this serves every network made of them.

"networks, and samples for each, of the kinds of layers that most networks have; in Flux's own Float32"
function common_networks()
    T = Float32
    dense(pair, σ=identity) = Dense(ones(T, last(pair), first(pair)), ones(T, last(pair)), σ)
    conv(σ) = Conv(ones(T, 2, 2, 1, 1), ones(T, 1), σ)
    attention = SelfAttention(ones(T, 2, 6), ones(T, 6), ones(T, 2, 2), ones(T, 2), 1, true)
    norm = SampleNorm(ones(T, 2), ones(T, 2), 1e-5, (2,))
    block = (SkipConnection(Chain(norm, attention), +), SkipConnection(Chain(norm, dense(2 => 2, NNlib.gelu_tanh)), +))
    table, positions = Embedding(ones(T, 2, 3)), LearnedPositions(ones(T, 2, 3))
    return (
        (Chain(dense(2 => 2, NNlib.sigmoid), dense(2 => 2, tanh), dense(2 => 2, NNlib.relu), NNlib.softmax), ones(T, 2, 3)),
        (Chain(conv(NNlib.relu), Flux.MaxPool((2, 2)), conv(tanh), FirstMaxPool((2, 2)), MeanPool((1, 1)), Flux.flatten,
            dense(1 => 2)), ones(T, 8, 8, 1, 3)),
        (Chain(dense(2 => 2, z -> z * NNlib.sigmoid(z)), dense(2 => 2)), ones(T, 2, 3)),
        (Chain(table, positions, map(deepcopy, block)..., Take(-1), dense(2 => 2)), ones(Int, 3, 3)),
    )
end

@compile_workload begin
    dense = """{"kind": "dense", "in_features": 2, "out_features": 2, "activation": "sigmoid", "bias": true}"""
    spec = """{"layers": [$dense, $dense, $dense, {"kind": "softmax"}]}"""
    names = ["$l.$name" for l in 0:2 for name in ("weight", "bias")]
    for T in (Float32, Float64)
        chain = bridge_build(spec, names, [ones(T, axes...) for _ in 0:2 for axes in ((2, 2), (2,))])
        X = ones(T, 2, 3)
        bridge_outputs(chain, X)
        bridge_jacobian(chain, X)
        bridge_input_jacobian(chain, X)
        foreach(outputs -> ntk(chain, X; outputs), (1, :trace, :diagonal, :full))
        spectrum(ntk(chain, X; method=:plain))
    end
    foreach(((network, x),) -> ntk(network, x; outputs=1), common_networks())
end
