# Zygote compiles for seconds at the first derivative in every process. What does not depend on a network's own types is
# compiled here, once, when the package is precompiled; the types are those of the Flux notebook's network.
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
        for outputs in (1, :trace, :full), method in (:structured, :plain)
            ntk(chain, X; outputs, method)
        end
        spectrum(ntk(chain, X))
    end
end
