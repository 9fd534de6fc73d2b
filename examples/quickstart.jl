# The kernel of a Flux network from Julia alone, without Python. From the top folder of the repository:
#
#     julia --project=julia -e 'using Pkg; Pkg.instantiate()'
#     julia --project=julia examples/quickstart.jl
using Flux, UDLBridge

# Samples are the last axis, outputs count from 1. This is the notebook's fixed network with its two points.
fixed = Chain(Dense(ones(Float32, 2, 2), ones(Float32, 2)), Dense(ones(Float32, 1, 2), ones(Float32, 1)))
points = Float32[0.5852378 0.0976659; 0.62436277 0.55464536]
K = ntk(fixed, points; outputs=1)
display(K)
display(spectrum(K))

# Any chain of Flux: here the 784-60-60-10 network, on random images.
model = Chain(Dense(784 => 60, sigmoid), Dense(60 => 60, sigmoid), Dense(60 => 10, sigmoid), softmax)
X = rand(Float32, 784, 10)
display(spectrum(ntk(model, X; outputs=1)))
println("input derivatives: ", size(input_jacobian(model, X)), ", trace kernel: ", size(ntk(model, X)))
