# My PyTorch ResNet, its Flux twin, and the proof: `python examples/crossing.py FOLDER` wrote the network, samples, and what PyTorch
# computes of them; then `julia examples/crossing.jl FOLDER`.
using Flux, UDLBridge

file(name) = joinpath(only(ARGS), name)
bytes(name, size...) = read!(file(name), Array{Float64}(undef, size...))   # (n, C, H, W) in C order is (W, H, C, n) in Julia's

net, X = UDLBridge.load(file("net.safetensors")), bytes("x.bin", 8, 8, 3, 4)
println(net)
println("outputs as PyTorch's: ", isapprox(net(X), bytes("outputs.bin", 10, 4); rtol=1e-12))
println("kernel as PyTorch's: ", isapprox(ntk(net, X), bytes("kernel.bin", 4, 4); rtol=1e-12))

state = Flux.setup(Adam(1e-3), net)                                        # Flux trains it, by the names that PyTorch gave
loss, (gradient,) = Flux.withgradient(m -> sum(abs2, m(X)), net)
Flux.update!(state, net, gradient)
println("a step of Adam: ", loss > sum(abs2, net(X)) ? "the loss falls" : "the loss grows")
UDLBridge.save(net, file("trained.safetensors"))                           # ub.Graph.load and ub.to_torch take it back
