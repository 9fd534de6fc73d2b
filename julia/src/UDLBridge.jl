"""
    UDLBridge

Gradient kernels of Flux networks: the empirical neural tangent kernel, its spectrum, and the derivatives behind it.

Samples are the *last* axis, as everywhere in Flux; outputs count from 1. Start with [`ntk`](@ref),
[`jacobian`](@ref), [`input_jacobian`](@ref) and [`spectrum`](@ref).

The package needs no Python. The Python package `udlbridge` calls the functions in `bridge.jl`, which take arrays and a
JSON spec and do no computation of their own.
"""
module UDLBridge

using ChainRulesCore: ChainRulesCore, NoTangent, @non_differentiable, unthunk
using ConstructionBase: setproperties
using Flux: Flux, BatchNorm, Chain, Conv, CrossCor, Dense, Dropout, Embedding, GlobalMeanPool, GroupNorm, MeanPool,
    Parallel, SkipConnection
using ForwardDiff: ForwardDiff
using JSON: JSON
using LinearAlgebra
using NNlib: NNlib
using PrecompileTools: @compile_workload
using Printf: @sprintf
using SpecialFunctions: erf
using Zygote: Zygote

export ntk, jacobian, input_jacobian, input_hessian, pull, push, signals, outputs, spectrum, Spectrum, build, parameters
export Training, Sobolev, Observed, epoch!, loss_gradient
export from_flux, to_flux

include("layout.jl")
include("layers.jl")
include("observing.jl")
include("layers/dense.jl")
include("layers/convolution.jl")
include("layers/pooling.jl")
include("layers/normalisation.jl")
include("layers/sequence.jl")
include("layers/containers.jl")
include("reduction.jl")
include("inference.jl")
include("derivatives.jl")
include("rules.jl")
include("duals.jl")
include("curvature.jl")
include("slopes.jl")
include("signals.jl")
include("programs.jl")
include("kernel.jl")
include("tokens.jl")
include("structured.jl")
include("operator.jl")
include("spectrum.jl")
include("training.jl")
include("translation.jl")
include("files.jl")
include("bridge.jl")
include("precompile.jl")

end
