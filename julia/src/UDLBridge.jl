"""
    UDLBridge

Gradient kernels of Flux networks: the empirical neural tangent kernel, its spectrum, and the derivatives behind it.

Samples are the *last* axis, as everywhere in Flux; outputs count from 1. Start with [`ntk`](@ref),
[`jacobian`](@ref), [`input_jacobian`](@ref) and [`spectrum`](@ref).

The package needs no Python. The Python package `udlbridge` calls the functions in `bridge.jl`, which take arrays and a
JSON spec and do no computation of their own.
"""
module UDLBridge

using Flux: Flux, Chain, Dense
using JSON: JSON
using LinearAlgebra
using NNlib: NNlib
using Printf: @sprintf
using Zygote: Zygote

export ntk, jacobian, input_jacobian, pull, push, outputs, spectrum, Spectrum, build, parameters

include("layout.jl")
include("layers.jl")
include("reduction.jl")
include("derivatives.jl")
include("kernel.jl")
include("operator.jl")
include("spectrum.jl")
include("bridge.jl")

end
