"Marks the dual numbers of this package."
struct Moving end

"""
    Along(value, direction)

A number that moves along a direction. Its type does not depend on what is differentiated, so that code for it is compiled
once for every kind of layer; `ForwardDiff.derivative` has a type of its own for every function.
"""
const Along = ForwardDiff.Dual{Moving}

"the derivative along the direction: zero for what does not move"
carried_along(z::Real) = ForwardDiff.partials(Moving, z, 1)

"""
    Carried(f)

The activation `f` for dual numbers: `f` of their value, and its derivative, [`slope`](@ref), times what they carry.

NNlib's formulas branch on the sign of their argument, and at 0 ForwardDiff breaks the tie by the derivative that a dual
number carries (from its version 1 on): the side would depend on the direction. Here the value alone decides. Where `f` has
no second derivative it is 0, and the first is the one from the left (of `abs` 0), as in all of Flux, PyTorch and the Python side.
"""
struct Carried{F} <: Function
    f::F
end
(a::Carried)(z::Real) = a.f(z)
function (a::Carried)(z::ForwardDiff.Dual{Tag}) where {Tag}
    v = ForwardDiff.value(z)
    return ForwardDiff.Dual{Tag}(a.f(v), slope(a.f, v) * ForwardDiff.partials(z))
end

# Strided: Zygote has a rule of its own for arrays that repeat one number (FillArrays).
function ChainRulesCore.rrule(::typeof(Base.Broadcast.broadcasted), a::Carried, z::StridedArray{<:Real})
    return a.(z), Δ -> (NoTangent(), NoTangent(), unthunk(Δ) .* slope.(a.f, z))
end

"""
    slope(f, z)

The derivative of the activation `f`. At a kink (of `relu` at 0, of `hardtanh` at -1 and 1) it is a constant, whatever a
dual number `z` carries.
"""
slope(::typeof(abs), z) = oftype(z, sign(ForwardDiff.value(z)))
slope(::typeof(NNlib.relu), z) = above(z) ? one(z) : zero(z)
slope(::typeof(NNlib.leakyrelu), z) = above(z) ? one(z) : oftype(z, NNlib.leakyrelu_a)
slope(::typeof(NNlib.elu), z) = above(z) ? one(z) : exp_below(z)
slope(::typeof(NNlib.selu), z) = oftype(z, NNlib.selu_λ * (above(z) ? one(z) : NNlib.selu_α * exp_below(z)))
slope(::typeof(NNlib.sigmoid), z) = logistic(z) * logistic(-z)
slope(::typeof(NNlib.softplus), z) = logistic(z)
slope(::typeof(NNlib.swish), z) = logistic(z) * (1 + z * logistic(-z))
function slope(::typeof(NNlib.mish), z)
    t = tanh(Carried(NNlib.softplus)(z))
    return t + z * (1 - t^2) * logistic(z)
end
slope(::typeof(NNlib.celu), z) = above(z) ? one(z) : exp_below(z)
slope(::typeof(NNlib.trelu), z) = ForwardDiff.value(z) > 1 ? one(z) : zero(z)
slope(::typeof(NNlib.relu6), z) = 0 < ForwardDiff.value(z) < 6 ? one(z) : zero(z)
slope(::typeof(NNlib.hardtanh), z) = abs(ForwardDiff.value(z)) < 1 ? one(z) : zero(z)
slope(::typeof(NNlib.softshrink), z) = abs(ForwardDiff.value(z)) > 0.5 ? one(z) : zero(z)
slope(::typeof(NNlib.hardσ), z) = abs(ForwardDiff.value(z)) < 3 ? one(z) / 6 : zero(z)
function slope(::typeof(NNlib.hardswish), z)
    v = ForwardDiff.value(z)
    abs(v) == 3 && return oftype(z, (2v + 3) / 6)
    return v < -3 ? zero(z) : v > 3 ? one(z) : (2z + 3) / 6
end
slope(::typeof(NNlib.logsigmoid), z) = logistic(-z)
slope(::typeof(NNlib.softsign), z) = inv((1 + Carried(abs)(z))^2)

const logistic = Carried(NNlib.sigmoid)

above(z) = ForwardDiff.value(z) > 0

"exp(z) below 0, and the constant 1 at 0"
exp_below(z) = iszero(ForwardDiff.value(z)) ? one(z) : exp(z)

const Branching = Union{typeof(abs),typeof(NNlib.relu),typeof(NNlib.leakyrelu),typeof(NNlib.elu),typeof(NNlib.selu),
    typeof(NNlib.sigmoid),typeof(NNlib.softplus),typeof(NNlib.swish),typeof(NNlib.mish),typeof(NNlib.celu),typeof(NNlib.trelu),
    typeof(NNlib.relu6),typeof(NNlib.hardtanh),typeof(NNlib.softshrink),typeof(NNlib.hardσ),typeof(NNlib.hardswish),
    typeof(NNlib.logsigmoid),typeof(NNlib.softsign)}

"""
    for_duals(chain)

The chain as dual numbers can go through it: [`Carried`](@ref) activations, and `identity` for every dropout, since Flux's
draws random numbers even in inference mode, and cannot draw dual ones.
"""
function for_duals(chain::Chain)
    return Flux.fmap(carrying, chain; exclude=layer -> layer isa Union{Drop,Explicit} || Flux.Functors.isleaf(layer))
end

const Drop = Union{Dropout,Flux.AlphaDropout}

carrying(leaf) = leaf
carrying(::Drop) = identity
carrying(f::Branching) = Carried(f)
