"""
    UDLBridge

Gradient kernels of Flux networks: the empirical neural tangent kernel, its spectrum, and the derivatives behind it.

Samples are the *last* axis, as everywhere in Flux; outputs count from 1. Start with [`ntk`](@ref),
[`input_jacobian`](@ref) and [`spectrum`](@ref). Public too, but not exported, since their names are general or taken by
other packages: [`UDLBridge.jacobian`](@ref), [`UDLBridge.parameters`](@ref), [`UDLBridge.outputs`](@ref),
[`UDLBridge.pull`](@ref), [`UDLBridge.push`](@ref), [`UDLBridge.signals`](@ref), [`UDLBridge.build`](@ref),
[`UDLBridge.optimiser`](@ref), [`UDLBridge.save`](@ref), [`UDLBridge.load`](@ref), [`UDLBridge.network`](@ref) and
[`UDLBridge.Graph`](@ref).

The package needs no Python. The Python package `udlbridge` calls the functions in `bridge.jl`, which take arrays and a
JSON spec and do no computation of their own.
"""
module UDLBridge

using ADTypes: ADTypes, AbstractADType, AutoForwardDiff, AutoZygote
using ChainRulesCore: ChainRulesCore, NoTangent, Tangent, ZeroTangent, @non_differentiable, @thunk, unthunk
using ConstructionBase: setproperties
using Flux: Flux, BatchNorm, Chain, Conv, CrossCor, Dense, Dropout, Embedding, GlobalMeanPool, GroupNorm, MeanPool,
    Parallel, SkipConnection
using ForwardDiff: ForwardDiff
using JSON: JSON
using LinearAlgebra
using NNlib: NNlib
using PrecompileTools: @compile_workload
using Printf: @sprintf
using Random: AbstractRNG
using SpecialFunctions: SpecialFunctions, erf, erfc
using Statistics: Statistics
using Zygote: Zygote

export ntk, input_jacobian, input_hessian, spectrum, Spectrum
export infinite_ntk
export Training, Sobolev, Observed, epoch!, loss_gradient
export from_flux, to_flux

# Names that others have too (Zygote's `jacobian`), or that are too general to take: `UDLBridge.jacobian`, or by `using`.
@static if VERSION >= v"1.11"
    eval(Expr(:public, :jacobian, :pull, :push, :signals, :outputs, :parameters, :build, :save, :load, :optimiser,
        :NumericalError, :AtStart, :Graph, :network))
end

include("stopping.jl")
include("layout.jl")
include("layers.jl")
include("leaves.jl")
include("observing.jl")
include("gradients.jl")
include("convolving.jl")
include("layers/dense.jl")
include("layers/convolution.jl")
include("layers/pooling.jl")
include("layers/normalisation.jl")
include("layers/sequence.jl")
include("layers/containers.jl")
include("reduction.jl")
include("inference.jl")
include("samples.jl")
include("known.jl")
include("finite.jl")
include("derivatives.jl")
include("adtypes.jl")
include("rules.jl")
include("duals.jl")
include("curvature.jl")
include("slopes.jl")
include("signals.jl")
include("programs.jl")
include("summands.jl")
include("tiles.jl")
include("kernel.jl")
include("tokens.jl")
include("structured.jl")
include("operator.jl")
include("spectrum.jl")
include("training.jl")
include("infinite.jl")
include("infinite/layers.jl")
include("infinite/expectations.jl")
include("translation.jl")
include("explicit.jl")
include("graphs/graph.jl")
include("graphs/inputs.jl")
include("graphs/duals.jl")
include("graphs/passes.jl")
include("graphs/elementwise.jl")
include("graphs/affine.jl")
include("graphs/windows.jl")
include("graphs/reductions.jl")
include("graphs/norms.jl")
include("graphs/indexing.jl")
include("graphs/network.jl")
include("graphs/placing.jl")
include("graphs/samplewise.jl")
include("graphs/sites.jl")
include("graphs/training.jl")
include("graphs/curvature.jl")
include("linearized.jl")
include("files.jl")
include("tracing/trace.jl")
include("tracing/numbers.jl")
include("tracing/arrays.jl")
include("tracing/products.jl")
include("tracing/models.jl")
include("bridge.jl")
include("guests.jl")
include("precompile.jl")

end
